"""Group tables and comparisons of groups."""

from sodium_prep.cohort.compare import MAIN_REGIONS, Comparisons, compare_groups, main_values
from sodium_prep.cohort.tables import Cohort, data_dictionary, gather, to_tsv, wide_table

__all__ = [
    "MAIN_REGIONS",
    "Cohort",
    "Comparisons",
    "compare_groups",
    "data_dictionary",
    "gather",
    "main_values",
    "to_tsv",
    "wide_table",
]
