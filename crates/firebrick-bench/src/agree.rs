//! Whether both sides compute the same.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use firebrick_tensor::Parameters;

use crate::protocol::Answers;

/// How far losses may lie apart, relative to their size.
const LOSS_TOLERANCE: f64 = 1e-4;

/// The cosine that gradients over all parameters must exceed.
const LEAST_COSINE: f64 = 0.9999;

/// How far the lengths of the gradients may lie apart, relative to their size.
const NORM_TOLERANCE: f64 = 1e-3;

/// The share of greedy tokens that must be the same: a near tie may fall either way, and everything after it differs.
const LEAST_SAME_TOKENS: f64 = 0.9;

/// How well two sides agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// The largest relative difference of two losses.
    pub loss: f64,
    /// The cosine of the gradients, if there are any.
    pub cosine: Option<f64>,
    /// The share of the same greedy tokens, if there are any.
    pub tokens: Option<f64>,
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "losses to {:.0e}", self.loss)?;
        if let Some(cosine) = self.cosine {
            write!(f, ", 1 − cosine {:.0e}", (1.0 - cosine).max(0.0))?;
        }
        if let Some(tokens) = self.tokens {
            write!(f, ", {:.1} % of the tokens", 100.0 * tokens)?;
        }
        Ok(())
    }
}

/// How well the answers agree; the gradients are in the files.
///
/// # Errors
/// If they do not, or a file is not of the same parameters.
pub fn agreement(ours: &Answers, theirs: &Answers, gradients: [&Path; 2]) -> Result<Agreement> {
    ensure!(ours.losses.len() == theirs.losses.len(), "{} losses beside {}", ours.losses.len(), theirs.losses.len());
    let difference = |(ours, theirs): (&f64, &f64)| (ours - theirs).abs() / ours.abs().max(1e-12);
    // `f64::max` would overlook what is not a number.
    let loss = ours.losses.iter().zip(&theirs.losses).map(difference).max_by(f64::total_cmp).unwrap_or(0.0);
    if loss.is_nan() || loss > LOSS_TOLERANCE {
        bail!("the losses disagree by {loss:.1e}: {:?} here, {:?} there", ours.losses, theirs.losses);
    }
    let read = |path: &Path| -> Result<Parameters> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Parameters::from_bytes(&bytes).with_context(|| path.display().to_string())
    };
    let cosine = match gradients.map(Path::exists) {
        [false, false] => None,
        _ => Some(cosine(&read(gradients[0])?, &read(gradients[1])?)?),
    };
    let same = same_tokens(&ours.tokens, &theirs.tokens);
    if let Some(same) = same.filter(|same| *same < LEAST_SAME_TOKENS) {
        bail!("only {:.1} % of the greedy tokens are the same", 100.0 * same);
    }
    Ok(Agreement { loss, cosine, tokens: same })
}

/// The cosine of two gradients over all parameters.
///
/// # Errors
/// If it is too small, the lengths differ, or the parameters do.
pub fn cosine(ours: &Parameters, theirs: &Parameters) -> Result<f64> {
    let (mut dot, mut squares, mut worst) = (0.0, [0.0, 0.0], (f64::INFINITY, ""));
    let others = theirs.iter().map(|(name, shape, values)| (name, (shape, values)));
    let mut others = others.collect::<std::collections::BTreeMap<_, _>>();
    for (name, shape, values) in ours.iter() {
        let (other_shape, other) = others.remove(name).with_context(|| format!("no gradient of `{name}` there"))?;
        ensure!(shape == other_shape, "the gradient of `{name}` is {shape:?} here, {other_shape:?} there");
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let (both, one, two) = (product(values, other), product(values, values), product(other, other));
        // Where both are 0, as those of keys' biases are but for rounding, there is no direction to compare.
        let alike = both / (one * two).sqrt().max(1e-12);
        if alike < worst.0 && one > 1e-9 {
            worst = (alike, name);
        }
        dot += both;
        squares = [squares[0] + one, squares[1] + two];
    }
    if let Some(name) = others.keys().next() {
        bail!("no gradient of `{name}` here");
    }
    let norms = squares.map(f64::sqrt);
    let cosine = dot / (norms[0] * norms[1]);
    let lengths = (norms[0] / norms[1] - 1.0).abs();
    if cosine.is_nan() || cosine <= LEAST_COSINE {
        bail!("the gradients' cosine is {cosine:.6}; `{}` differs most, {:.6}", worst.1, worst.0);
    }
    ensure!(lengths <= NORM_TOLERANCE, "the gradients are {:.6} long here, {:.6} there", norms[0], norms[1]);
    Ok(cosine)
}

/// The share of equal tokens at equal places.
fn same_tokens(ours: &[Vec<u32>], theirs: &[Vec<u32>]) -> Option<f64> {
    let all = ours.iter().map(Vec::len).sum::<usize>().max(theirs.iter().map(Vec::len).sum());
    let pairs = ours.iter().zip(theirs).flat_map(|(ours, theirs)| ours.iter().zip(theirs));
    (all > 0).then(|| pairs.filter(|(ours, theirs)| ours == theirs).count() as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients of two parameters, the second of which is changed by a factor.
    fn gradients(factor: f32) -> Parameters {
        let mut gradients = Parameters::default();
        gradients.insert("bias", vec![2], vec![3.0, 4.0]);
        gradients.insert("weight", vec![2, 2], [1.0, -2.0, 2.0, 4.0].map(|value| value * factor).to_vec());
        gradients
    }

    /// Write the gradients of both sides and see whether they agree.
    fn check(ours: (&[f64], &Parameters), theirs: (&[f64], &Parameters)) -> Result<Agreement> {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["ours", "theirs"].map(|name| dir.path().join(name));
        for (path, gradients) in paths.iter().zip([ours.1, theirs.1]) {
            fs::write(path, gradients.to_bytes()).unwrap();
        }
        let answers = |losses: &[f64]| Answers { losses: losses.to_vec(), tokens: Vec::new() };
        agreement(&answers(ours.0), &answers(theirs.0), [&paths[0], &paths[1]])
    }

    #[test]
    fn equal_sides_agree() {
        let found = check((&[2.0, 1.5], &gradients(1.0)), (&[2.0, 1.5], &gradients(1.0))).unwrap();
        assert_eq!(found.loss, 0.0);
        assert!((found.cosine.unwrap() - 1.0).abs() < 1e-12);
    }

    /// |b|² = |w|² = 25: cos = (25 + 25 f) / √(50 (25 + 25 f²)), 0.9999 at f ≈ 1.029, while the length grows by 1.4 %.
    #[test]
    fn a_changed_gradient_is_found_and_named() {
        let loss: &[f64] = &[2.0];
        let message = |factor| check((loss, &gradients(1.0)), (loss, &gradients(factor))).unwrap_err().to_string();
        assert!(message(-1.0).contains("`weight` differs most, -1.0"), "{}", message(-1.0));
        assert!(message(1.04).contains("cosine is 0.9998"), "{}", message(1.04));
        assert!(message(1.02).contains("long here"), "{}", message(1.02));
        let mut more = gradients(1.0);
        more.insert("other", vec![1], vec![1.0]);
        let error = check((loss, &gradients(1.0)), (loss, &more)).unwrap_err().to_string();
        assert_eq!(error, "no gradient of `other` here");
    }

    #[test]
    fn losses_may_differ_by_a_ten_thousandth() {
        let check = |theirs: f64| check((&[2.0], &gradients(1.0)), (&[theirs], &gradients(1.0)));
        assert!(check(2.000_1).is_ok());
        assert!(check(2.000_3).unwrap_err().to_string().contains("disagree by 1.5e-4"));
        assert!(check(f64::NAN).is_err());
    }

    #[test]
    fn greedy_tokens_may_part_late() {
        assert_eq!(same_tokens(&[vec![1, 2, 3, 4]], &[vec![1, 2, 3, 5]]), Some(0.75));
        assert_eq!(same_tokens(&[vec![1]], &[vec![]]), Some(0.0));
        assert_eq!(same_tokens(&[], &[]), None);
    }
}
