"""Sentences of the methods text on the group level. Written only for what was done, as all of that text."""

from __future__ import annotations

from typing import Final

from sodium_prep.report.methods_anatomy import Step, join


def quality(step: Step) -> str:
    """Quality control across scans."""
    text = (
        "Quality metrics of all scans were compared with those of their site, or with all where a site has fewer than "
        "10; values farther than 3.5 robust standard deviations from the median were looked at {iglewicz1993}."
    )
    if step.get("raters"):
        text += " Verdicts of human raters went before those of the metrics."
    if n := step.get("n_excluded"):
        text += f" {n} scan{' was' if n == 1 else 's were'} left out by the quality control."
    return text


def comparison(step: Step) -> str:
    """Comparison of groups."""
    text = (
        f"Groups were compared in {step.get('regions', 'the main regions')}, each estimated as one region, by the "
        "difference of means with Welch's interval {welch1947} and by Hedges' g {hedges1981}."
    )
    if step.get("covariates"):
        text += (
            f" The difference at equal {join(list(step['covariates']))} comes from a linear model with "
            "heteroskedasticity-consistent (HC3) errors {mackinnon1985}."
        )
    if step.get("tissue_covariates"):
        text += f" It was estimated again with {join(list(step['tissue_covariates']))} of the region held constant too."
    if step.get("robust"):
        text += " The adjusted model was also fitted by Huber's M estimator {huber1964}."
    if step.get("weights"):
        text += " The adjusted model was also fitted with weights by the standard errors of the values."
    if step.get("negative_controls"):
        text += (
            f" {join(list(step['negative_controls']))}, where no difference is expected, served as negative control "
            "and entered no correction."
        )
    return text + " p values were corrected within each pair of groups, estimator and reference {benjamini1995}."


def harmonisation(step: Step) -> str:
    """What was done about sites."""
    if step.get("method") == "combat":
        return (
            "Values were harmonised between sites by ComBat {johnson2007, fortin2018}, with group and covariates kept, "
            "and the site stayed in the models, without which tests of harmonised values find too many differences "
            "{nygaard2016}."
        )
    text = "Sites entered the models as a covariate; values were not harmonised before a test {nygaard2016}."
    if step.get("shown"):
        text += " Figures of harmonised values are by ComBat {johnson2007, fortin2018}, with group and covariates kept."
    return text


def normative(step: Step) -> str:
    """Distances from the controls."""
    n = f" of {step['n_controls']} participants" if step.get("n_controls") else ""
    text = f"Regional values were expressed as distances from the controls{n}, each control from the other controls"
    if step.get("covariates"):
        text += f", at equal {join(list(step['covariates']))}"
    return text + "; regions whose CSF lay 1.96 or more from that of the controls were left out {ridley2017}."


def longitudinal(step: Step) -> str:
    """Change over sessions."""
    covariates = f", with {join(list(step['covariates']))} held constant" if step.get("covariates") else ""
    return (
        "Change per year and its difference between groups come from linear mixed models with a random intercept of "
        f"each participant{covariates} {{laird1982}}."
    )


_CORRELATIONS: Final = {"spearman": "Spearman's rank correlation", "pearson": "Pearson's correlation"}


def correlation(step: Step) -> str:
    """Correlation with scores."""
    kinds = [_CORRELATIONS.get(str(k), str(k)) for k in step.get("methods", ("spearman",))]
    text = f"Regional values were related to {join(list(step.get('scores', ('scores',))))} by {join(kinds)}"
    if step.get("covariates"):
        text += f", also as partial correlation at equal {join(list(step['covariates']))}"
    return text + "; p values were corrected for the false discovery rate {benjamini1995}."


def classification(step: Step) -> str:
    """How well values tell groups apart."""
    text = "How well regional values tell groups apart is given by the area under the ROC curve {hanley1982}"
    if step.get("folds"):
        text += f", in the sample and by {step['folds']}-fold cross-validation"
    if step.get("bootstraps"):
        text += f", with intervals of {step['bootstraps']} bootstrap samples"
    return text + "."


def survival(step: Step) -> str:
    """Time to an event."""
    held = f" at equal {join(list(step['covariates']))}" if step.get("covariates") else ""
    return (
        f"The hazard of the event per standard deviation of a regional value{held} comes from Cox models {{cox1972}}."
    )


def reliability(step: Step) -> str:
    """Repeat scans."""
    repeat = step.get("repeat", "repeat scans")
    return (
        f"Reliability comes from {repeat}: coefficient of variation within a participant, intraclass correlation "
        "{shrout1979}, minimal detectable change (1.96 times the square root of 2 times the standard deviation within "
        "a participant) and limits of agreement {bland1986}."
    )


def voxelwise(step: Step) -> str:
    """Tests of every voxel."""
    statistic = {
        "tfce": "threshold-free cluster enhancement {smith2009}",
        "cluster": "the mass of clusters",
    }.get(str(step.get("statistic", "tfce")), str(step.get("statistic")))
    n = f"{step['permutations']} permutations" if step.get("permutations") else "permutations"
    text = (
        f"Maps in template space were compared voxel by voxel with family-wise error control by {n} {{winkler2014}} of "
        f"{statistic}"
    )
    if step.get("covariates"):
        text += f", with {join(list(step['covariates']))} held constant"
    return text + "."
