"""Siemens raw data of known content, as twixtools write them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

twixtools = pytest.importorskip("twixtools")

DWELL_NS = 156250
PHASE, READ, SLICE = Rotation.from_euler("xyz", (20.0, -30.0, 55.0), degrees=True).as_matrix().T
POSITION = np.array([3.5, -12.25, 40.0])

PROTOCOL = f"""### ASCCONV BEGIN ###
sTXSPEC.asNucleusInfo[0].tNucleus = "23Na"
sRXSPEC.alDwellTime[0] = {{dwell}}
sProtConsistencyInfo.flNominalB0 = 2.8936
alTR[0] = 120000
alTE[0] = 300
alTE[1] = 5000
adFlipAngleDegree[0] = 90
sSliceArray.lSize = 1
sSliceArray.asSlice[0].sPosition.dSag = {POSITION[0]}
sSliceArray.asSlice[0].sPosition.dCor = {POSITION[1]}
sSliceArray.asSlice[0].sPosition.dTra = {POSITION[2]}
sSliceArray.asSlice[0].sNormal.dSag = {SLICE[0]}
sSliceArray.asSlice[0].sNormal.dCor = {SLICE[1]}
sSliceArray.asSlice[0].sNormal.dTra = {SLICE[2]}
sSliceArray.asSlice[0].dThickness = 216
sSliceArray.asSlice[0].dPhaseFOV = 228
sSliceArray.asSlice[0].dReadoutFOV = 240
sKSpace.lBaseResolution = 40
### ASCCONV END ###
"""


def protocol_header(dwell_ns=DWELL_NS, old="", new="", length=0):
    text = PROTOCOL.format(dwell=dwell_ns).replace(old, new).encode()
    body = np.uint32(1).tobytes() + b"MeasYaps\0" + np.uint32(len(text)).tobytes() + text
    body += bytes(max(-(len(body) + 4) % 32, length - len(body) - 4))
    return np.frombuffer(np.uint32(len(body) + 4).tobytes() + body, "S1")


def readout(data, line=0, average=0, echo=0, flag=None, version_is_ve=True):
    one = twixtools.mdb.Mdb_local(data, version_is_ve)
    one.mdh.Counter.Lin, one.mdh.Counter.Ave, one.mdh.Counter.Eco = line, average, echo
    x, y, z, w = Rotation.from_matrix(np.stack([PHASE, READ, SLICE], axis=1)).as_quat()
    one.mdh.SliceData.Quaternion[:] = (w, x, y, z)
    place = one.mdh.SliceData.SlicePos
    place.Sag, place.Cor, place.Tra = POSITION
    if flag:
        one.add_flag(flag)
    return one


def write_twix(path, readouts, noise=None, **header):
    """A noise measurement, and the measurement itself with a readout that is none of the image."""
    scans = [{"hdr_str": protocol_header(**header), "mdb": [readout(np.ones((1, 32)), flag="RTFEEDBACK"), *readouts]}]
    if noise is not None:
        scans.insert(0, {"hdr_str": protocol_header(2 * DWELL_NS), "mdb": [readout(noise, flag="NOISEADJSCAN")]})
    twixtools.write_twix(scans, str(path))
    return path
