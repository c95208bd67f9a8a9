"""How far a judge can be believed, estimated without labels: two annotators of one hidden truth.

The truth of a pair, k, is one of LABELS: what a judge who never erred would say of it, IGNORE where the job does not
fit. It is hidden, and two annotators give evidence of it, the similarities of applicant and job (phi) and the judge:

    P(k | phi) = softmax_k(theta_k · phi)                       theta of IGNORE is 0
    P(answer = l | k) = confusion[k, l]

An answer that is a distribution is first read as the label it points to (`sharpened`). Expectation-maximisation finds
theta and the confusion from the answers of a block of agents or of a ledger (Dawid & Skene 1979; with a classifier as
one of the annotators, Raykar et al. 2010). It never sees relevance grades. These rules keep it sound:

- theta has a prior from other markets (how the chance to fit depends on the cosine there) and departs from it only on
  evidence: few jobs of a catalogue fit, so a judge who says APPLY of many dissimilar jobs is in error;
- the iteration starts from a judge who says the same of every pair, and a judge whose answers do not follow the chance
  that a job fits is pulled back towards that one (`_validity`), also in how it tells APPLY from CLICK: no judge is
  believed without evidence;
- a judge who seldom says APPLY of a misfit is presumed to miss a fit as seldom: the similarities alone cannot tell the
  judge's misses from their own;
- P(fits | answer) never rises from APPLY to IGNORE, so a judge who contradicts the texts is not believed in reverse;
- the texts can be wrong about a job: some pairs have any truth whatever their similarities, and a judge who hardly errs
  elsewhere is believed there too; for one who errs often, the errors explain such answers (`_surprising`);
- hand-made labels are fixed at their truth, for the confusion alone; what applicants did counts for theta alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynaq.judging.judgement import LABELS

Array = npt.NDArray[np.float64]

LEVELS = len(LABELS)
# Prior for APPLY, SAVE and CLICK: slope of the log-odds against IGNORE per standard deviation of the cosine, and their
# value at the applicant's mean. Means of maximum likelihood fits on development applicants of O*NET and ESCO.
SLOPES, INTERCEPTS = (5.0, 2.8, 2.1), (-15.9, -7.5, -5.5)
# How many jobs fit is what a judge gets wrong most easily: one who likes what resembles the profile says APPLY too
# often just where jobs may fit. With an intercept that follows the answers (0.16) such a judge took 0.077 of nDCG@10
# from the cosine on development applicants, with 0.5 it takes 0.016. A stiffer one gains a little more, but no longer
# learns a market in which more jobs fit, and the cosine knows less, than in those that the means are of.
SLOPE_PRECISION, INTERCEPT_PRECISION, OTHER_PRECISION = 2.0, 0.5, 40.0
ITERATIONS = 4  # per round; each round starts from the last one's result
ITERATIONS_TO_CONVERGE = 40  # from a judge about whom nothing is known, until the estimate no longer moves
ROW_PSEUDO = 40.0  # pseudo-answers that pull each row of the confusion towards the two-parameter form
MISFIT_PSEUDO = 10.0  # pseudo-answers that pull the misfits' row towards the pooled mix of answers
VALIDITY_PSEUDO = 1.0  # added to the variance of the chance to fit, summed over pairs
SURPRISING = 0.03  # share of pairs whose truth has nothing to do with their similarities, if the judge never errs
SURPRISING_ERROR = 0.15  # estimated error from which on no answer is explained in this way
VALID = 0.5  # below this validity the answers are not believed about degrees of fit either, which nothing else checks
SHARPENING = 4.0  # see `sharpened`
LEAST = 1e-4
LONGEST_STEP = 2.0  # of the Newton iteration, in log-odds


@dataclass(frozen=True)
class JudgeTable:
    """What a judge's answers are worth.

    Args:
        fits, not_fits: P(answer | the job fits), P(answer | it does not), in the order of LABELS.
        error: estimated share of answers that are errors.
        share_fits: estimated share of the answered pairs that fit.
        answers, known: number of answered pairs, and how many of them have a known truth.
    """

    fits: tuple[float, ...]
    not_fits: tuple[float, ...]
    error: float = 1.0
    share_fits: float = 0.0
    answers: int = 0
    known: int = 0

    @property
    def trust(self) -> float:
        """Youden's J of the best use of an answer, in [0, 1]: the total variation distance between the two rows."""
        return 0.5 * sum(abs(a - b) for a, b in zip(self.fits, self.not_fits, strict=True))

    @property
    def apply_right(self) -> float:
        """Estimated share of the answered pairs labelled APPLY whose job fits."""
        right, wrong = self.share_fits * self.fits[0], (1.0 - self.share_fits) * self.not_fits[0]
        return right / (right + wrong) if right + wrong > 0.0 else 0.0

    def rows(self) -> Array:
        """`[2, 4]`: P(answer | does not fit), P(answer | fits)."""
        return np.array([self.not_fits, self.fits])


NOTHING = JudgeTable((1.0 / LEVELS,) * LEVELS, (1.0 / LEVELS,) * LEVELS)


@dataclass(frozen=True)
class Answers:
    """Answered pairs of a block, one per row.

    Args:
        phi: `[rows, width]`: the standardised cosine, 1, and the other columns of `similarity_features`.
        answers: `[rows, 4]` distributions over LABELS.
        agent, job: `[rows]` int, the applicant's agent and the job that the answer is about.
        known: `[rows]` 1 where the job is known to fit, 0 where it is known not to, else NaN.
    """

    phi: Array
    answers: Array
    agent: npt.NDArray[np.int64]
    job: npt.NDArray[np.int64]
    known: Array

    def only(self, some: npt.NDArray[np.bool_]) -> Answers:
        """The rows that the mask `some` `[rows]` picks."""
        return Answers(self.phi[some], self.answers[some], self.agent[some], self.job[some], self.known[some])


def usual_mix(answers: Array) -> Array:
    """The judge's mean answer `[4]` to `[rows, 4]`, with one more answer that says nothing."""
    mix: Array = (answers.sum(0) + 1.0 / LEVELS) / (len(answers) + 1.0)
    return mix


def sharpened(answers: Array, mix: Array) -> Array:
    """Which label each answer `[rows, 4]` points to, against the judge's usual `mix` `[4]`: distributions `[rows, 4]`.

    A judge's probabilities say how sure it is, and hardly vary between pairs of one truth; read as labels drawn at
    random they would look like errors. So the log-odds by which an answer departs from the mix count SHARPENING-fold.
    An answer that is a label stays what it is.
    """
    p = answers * (answers / mix) ** (SHARPENING - 1.0)
    found: Array = p / p.sum(1, keepdims=True)
    return found


@dataclass(frozen=True)
class Acts:
    """What applicants did themselves: phi `[rows, width]`, and LABELS as distributions `[rows, 4]`."""

    phi: Array
    done: Array


@dataclass(frozen=True)
class JudgeModel:
    """State of the estimate: theta `[3, width]`, confusion `[4, 4]`, and the share of answers that are errors."""

    theta: Array
    confusion: Array
    error: float

    def static(self, phi: Array) -> Array:
        """log P(k | phi), `[..., 4]` of phi `[..., width]`."""
        logits = phi @ self.theta.T
        logits = np.concatenate([logits, np.zeros((*logits.shape[:-1], 1))], axis=-1)
        log_p: Array = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        if (share := _surprising(self.error)) > 0.0:
            log_p = np.logaddexp(np.log1p(-share) + log_p, np.log(share / LEVELS))
        return log_p


def _surprising(error: float) -> float:
    return SURPRISING * max(0.0, 1.0 - error / SURPRISING_ERROR) ** 2


def prior_theta(width: int) -> Array:
    """theta before any evidence, `[3, width]`: the cosine alone."""
    theta = np.zeros((LEVELS - 1, width))
    theta[:, 0], theta[:, 1] = SLOPES, INTERCEPTS
    return theta


def unknown_judge(width: int) -> JudgeModel:
    """A judge about whom nothing is known yet."""
    return JudgeModel(prior_theta(width), np.full((LEVELS, LEVELS), 1.0 / LEVELS), 1.0)


def estimate(
    pairs: Answers,
    start: JudgeModel,
    taste: Array | None = None,
    beyond: Array | None = None,
    acts: Acts | None = None,
    iterations: int = ITERATIONS,
    tied: bool = False,
) -> tuple[JudgeModel, JudgeTable, Array]:
    """The judge, its table, and P(k | everything) `[rows, 4]` of every pair.

    start: where the iteration begins. taste `[rows, 4]`: per label, the chance that an answer has nothing to do with
    this applicant. beyond `[rows, 4]`: log-odds that the applicant's other answers add to those of phi. acts: what
    applicants did; it tells how often jobs fit, and nothing about the judge. tied: the rows of the fits follow from the
    misfits' row, however many answers there are (`_confusion`). The similarities alone cannot tell the judge's misses
    from their own, and in a ledger's many and chosen pairs theirs would count as the judge's.
    """
    answers, rows = pairs.answers, len(pairs.answers)
    taste = np.zeros((rows, LEVELS)) if taste is None else taste
    beyond = np.zeros((rows, LEVELS)) if beyond is None else beyond
    pooled = (answers.sum(0) + 1.0) / (rows + LEVELS)
    model = start
    acts = Acts(pairs.phi[:0], answers[:0]) if acts is None else acts
    truth = np.zeros((rows, LEVELS))
    for _ in range(iterations):
        truth = _truth(pairs, model, taste, beyond)
        model = _maximised(pairs, model, truth, taste, beyond, pooled, acts, tied)
    return model, table_of(model, truth, pairs), truth


def _truth(pairs: Answers, model: JudgeModel, taste: Array, beyond: Array) -> Array:
    """P(k | answer, phi), `[rows, 4]`."""
    log_p = model.static(pairs.phi) + beyond + answer_likelihood(pairs.answers, model.confusion, taste)
    fits, fits_not = pairs.known == 1.0, pairs.known == 0.0
    log_p[fits, -1] = -np.inf
    log_p[np.ix_(fits_not, range(LEVELS - 1))] = -np.inf
    log_p -= log_p.max(1, keepdims=True)
    p = np.exp(log_p)
    found: Array = p / p.sum(1, keepdims=True)
    return found


def answer_likelihood(answers: Array, confusion: Array, taste: Array) -> Array:
    """log P(answer | k), `[rows, 4]`; its expectation where the answer is a distribution."""
    each = (1.0 - taste.sum(1))[:, None, None] * confusion + taste[:, None, :]
    found: Array = np.einsum("nl,nkl->nk", answers, np.log(each))
    return found


def _maximised(
    pairs: Answers,
    model: JudgeModel,
    truth: Array,
    taste: Array,
    beyond: Array,
    pooled: Array,
    acts: Acts,
    tied: bool,
) -> JudgeModel:
    genuine = 1.0 - taste.sum(1)
    counts = (truth * genuine[:, None]).T @ pairs.answers  # [k, l]
    misfit = counts[-1] + MISFIT_PSEUDO * pooled
    misfit = misfit / misfit.sum()
    error = min(1.0 - LEAST, float(1.0 - misfit[-1]) * LEVELS / (LEVELS - 1))
    mix = np.append(misfit[:-1] / max(1.0 - misfit[-1], 1e-9) * (LEVELS - 1) / LEVELS, 1.0 / LEVELS)
    # The cosine alone is the witness: the rest of theta, and `beyond`, follow the answers of the judge in question.
    fit = 1.0 - np.exp(_log_softmax(pairs.phi[:, :2] @ model.theta[:, :2].T, np.zeros(LEVELS))[:, -1])
    valid = _validity(fit * genuine, 1.0 - pairs.answers[:, -1], 1.0 - error)
    base = valid * _confusion(error, mix) + (1.0 - valid) * misfit
    confusion = base if tied else (counts + ROW_PSEUDO * base) / (counts.sum(1, keepdims=True) + ROW_PSEUDO)
    confusion = misfit + min(1.0, valid / VALID) * (confusion - misfit)
    if not tied:
        confusion = _ordered(confusion, truth.sum(0))
    # Labels are made of chosen pairs, so their shares tell nothing about how often a job fits.
    drawn = np.isnan(pairs.known)
    phi, known = np.concatenate([pairs.phi[drawn], acts.phi]), np.concatenate([truth[drawn], acts.done])
    offset = np.concatenate([beyond[drawn], np.zeros_like(acts.done)])
    return JudgeModel(_newton(phi, known, model.theta, offset), confusion, error)


def _validity(fit: Array, not_ignored: Array, expected: float) -> float:
    """How closely the answers follow the chance that a job fits, in [0, 1]. fit, not_ignored `[rows]`.

    When two annotators err independently, the slope of one on the other's calibrated probability is
    P(not ignored | fits) - P(not ignored | does not); `expected` is that slope if errors were symmetric.
    """
    centred = fit - fit.mean() if len(fit) else fit
    slope = float(centred @ not_ignored) / (float(centred @ centred) + VALIDITY_PSEUDO)
    return min(1.0, max(0.0, slope / max(expected, LEAST)))


def _log_softmax(logits: Array, beyond: Array) -> Array:
    logits = np.concatenate([logits, np.zeros((len(logits), 1))], axis=1) + beyond
    found: Array = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return found


def _ordered(confusion: Array, levels: Array) -> Array:
    """The confusion, corrected so that P(fits | answer) does not rise from APPLY to IGNORE, given the answers alone."""
    share = levels[:-1] + 1e-3
    fits, misfits = share / share.sum() @ confusion[:-1], confusion[-1]
    total = fits + misfits
    falling = _falling(fits / total, total)
    found = confusion * np.vstack([np.tile(falling * total / fits, (LEVELS - 1, 1)), (1.0 - falling) * total / misfits])
    found = np.maximum(found, LEAST)
    ordered: Array = found / found.sum(1, keepdims=True)
    return ordered


def _falling(values: Array, weights: Array) -> Array:
    """The non-increasing sequence nearest to the values: pool adjacent violators (Barlow et al. 1972)."""
    pools: list[tuple[float, float, int]] = []  # value, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (v, w, n), (before, heavy, many) = pools.pop(), pools.pop()
            pools.append(((v * w + before * heavy) / (w + heavy), w + heavy, n + many))
    found: Array = np.repeat([value for value, _, _ in pools], [n for _, _, n in pools])
    return found


def _confusion(error: float, mix: Array) -> Array:
    """The two-parameter form, `[4, 4]`."""
    found: Array = np.maximum((1.0 - error) * np.eye(LEVELS) + error * mix, LEAST)
    normalised: Array = found / found.sum(1, keepdims=True)
    return normalised


def _newton(phi: Array, truth: Array, theta: Array, beyond: Array) -> Array:
    """One Newton step of the multinomial regression of `truth` on phi, with a Gaussian prior around `prior_theta`."""
    width, classes = phi.shape[1], LEVELS - 1
    precision = np.full((classes, width), OTHER_PRECISION)
    precision[:, 0], precision[:, 1] = SLOPE_PRECISION, INTERCEPT_PRECISION
    p = np.exp(_log_softmax(phi @ theta.T, beyond))[:, :classes]
    gradient = (truth[:, :classes] - p).T @ phi - precision * (theta - prior_theta(width))
    hessian = np.zeros((classes, width, classes, width))
    for a in range(classes):
        for b in range(a, classes):
            weight = p[:, a] * ((a == b) - p[:, b])
            hessian[a, :, b, :] = hessian[b, :, a, :] = (phi * weight[:, None]).T @ phi
    flat = hessian.reshape(classes * width, classes * width) + np.diag(precision.ravel())
    step = np.linalg.solve(flat, gradient.ravel()).reshape(classes, width)
    longest = float(np.abs(phi @ step.T).max()) if len(phi) else 0.0
    found: Array = theta + step * min(1.0, LONGEST_STEP / max(longest, 1e-12))
    return found


def table_of(model: JudgeModel, truth: Array, pairs: Answers) -> JudgeTable:
    """The judge's estimate as the two rows that are reported."""
    fitting = truth[:, :-1].sum(0) + 1e-3
    fits = (fitting / fitting.sum()) @ model.confusion[:-1]
    return JudgeTable(
        fits=tuple(fits.tolist()),
        not_fits=tuple(model.confusion[-1].tolist()),
        error=model.error,
        share_fits=float(truth[:, :-1].sum(1).mean()) if len(truth) else 0.0,
        answers=len(truth),
        known=int((~np.isnan(pairs.known)).sum()),
    )
