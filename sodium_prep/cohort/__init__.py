"""Group tables and comparisons of groups."""

from sodium_prep.cohort.compare import Comparisons, compare_groups
from sodium_prep.cohort.model import MAIN_REGIONS
from sodium_prep.cohort.tables import Cohort, data_dictionary, gather, wide_table
from sodium_prep.cohort.tsv import to_tsv

__all__ = [
    "MAIN_REGIONS",
    "Cohort",
    "Comparisons",
    "compare_groups",
    "data_dictionary",
    "gather",
    "to_tsv",
    "wide_table",
]
