//! What is expected of the best of k samples.

/// The chance that the best-ranked of k samples is correct, estimated from N ≥ k samples sorted best first.
///
/// ```text
/// acc@k = Σᵢ cᵢ C(N−i, k−1) / C(N, k)        i = 1 … N, cᵢ ∈ {0, 1}
/// ```
/// Askell et al. 2021, [arXiv:2112.00861](https://arxiv.org/abs/2112.00861), appendix B.6. Spec: A-19, T-31.
///
/// The exact mean over all k-subsets of the samples, hence unbiased. The weights follow from one another by
/// wᵢ₊₁ = wᵢ (N−i−k+1)/(N−i), so that no binomial coefficient overflows. Average over problems.
///
/// # Panics
/// If `k` is 0 or exceeds the number of samples.
pub fn acc_at_k(correct_best_first: &[bool], k: usize) -> f64 {
    let n = correct_best_first.len();
    assert!(1 <= k && k <= n, "acc@{k} needs k between 1 and the {n} samples");
    let mut weight = k as f64 / n as f64;
    let mut chance = 0.0;
    // A sample with fewer than k − 1 worse ones is never the best of k.
    for (better, &correct) in correct_best_first[..=n - k].iter().enumerate() {
        if correct {
            chance += weight;
        }
        let worse = (n - better - 1) as f64;
        weight *= (worse - (k - 1) as f64) / worse;
    }
    chance
}

/// The chance that at least one of k samples is correct, estimated from `samples` ≥ k samples, `correct` of them so.
///
/// ```text
/// pass@k = 1 − C(n−c, k) / C(n, k) = 1 − Πᵢ (1 − k/i)        i = n−c+1 … n
/// ```
/// Chen et al. 2021, [arXiv:2107.03374](https://arxiv.org/abs/2107.03374), eq. 1. Spec: A-14, T-31. Average over
/// problems.
///
/// # Panics
/// If `k` is 0 or exceeds `samples`, or `correct` exceeds `samples`.
pub fn pass_at_k(samples: usize, correct: usize, k: usize) -> f64 {
    assert!(1 <= k && k <= samples, "pass@{k} needs k between 1 and the {samples} samples");
    assert!(correct <= samples, "{correct} correct of {samples} samples");
    // Where k samples cannot all be wrong, i passes k and the product is 0.
    1.0 - (samples - correct + 1..=samples).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// The KL divergence, in nats, of the best of n samples from a single one.
///
/// ```text
/// KL = ln n − (n−1)/n
/// ```
/// Stiennon et al. 2020, [arXiv:2009.01325](https://arxiv.org/abs/2009.01325), appendix G.3. Spec: B-29, T-36.
///
/// Bai et al. 2022 quote ln n, which is more by nearly 1 nat for large n; a log that compares with theirs needs both.
/// Exact where no two samples tie and all differ; otherwise an upper bound (Beirami et al. 2024,
/// [arXiv:2401.01879](https://arxiv.org/abs/2401.01879)).
///
/// # Panics
/// If `n` is 0.
pub fn best_of_n_kl(n: u64) -> f64 {
    assert!(n > 0, "the best of 0 samples does not exist");
    let n = n as f64;
    n.ln() - (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::goldens::{close, golden};

    /// Means over all k-subsets: is the first (best) one correct, is any?
    fn brute_force(correct: &[bool], k: u32) -> (f64, f64) {
        let (mut subsets, mut first, mut any) = (0.0, 0.0, 0.0);
        for subset in (0u32..1 << correct.len()).filter(|subset| subset.count_ones() == k) {
            subsets += 1.0;
            first += f64::from(correct[subset.trailing_zeros() as usize]);
            any += f64::from((0..correct.len()).any(|i| subset >> i & 1 == 1 && correct[i]));
        }
        (first / subsets, any / subsets)
    }

    #[test]
    fn t31_estimators_match_brute_force() {
        for n in 1..=8usize {
            for bits in 0u32..1 << n {
                let correct: Vec<bool> = (0..n).map(|i| bits >> i & 1 == 1).collect();
                for k in 1..=n {
                    let (first, any) = brute_force(&correct, k as u32);
                    assert!((acc_at_k(&correct, k) - first).abs() < 1e-14, "{correct:?}, k = {k}");
                    let count = bits.count_ones() as usize;
                    assert!((pass_at_k(n, count, k) - any).abs() < 1e-14, "{correct:?}, k = {k}");
                }
            }
        }
    }

    #[test]
    fn t31_large_n_stays_finite_and_exact() {
        let case = golden("estimators");
        let correct: Vec<bool> =
            case["correct_best_first"].as_array().unwrap().iter().map(|c| c.as_bool().unwrap()).collect();
        for (k, expected) in case["acc_at_k"].as_object().unwrap() {
            close(acc_at_k(&correct, k.parse().unwrap()), expected, 1e-13);
        }
        for (k, expected) in case["pass_at_k"].as_object().unwrap() {
            close(pass_at_k(100, 3, k.parse().unwrap()), expected, 1e-13);
        }
        // All right or all wrong: the weights sum to 1 at any size.
        assert!((acc_at_k(&[true; 100], 96) - 1.0).abs() < 1e-13);
        assert!((acc_at_k(&[true; 20_000], 96) - 1.0).abs() < 1e-12);
        assert_eq!(acc_at_k(&[false; 100], 96), 0.0);
    }

    #[test]
    fn acc_at_k_by_hand() {
        // N = 4, k = 2: weights 3/6, 2/6, 1/6, 0/6; the first and last are correct.
        assert_eq!(acc_at_k(&[true, false, false, true], 2), 0.5);
        assert_eq!(acc_at_k(&[true, false, false, true], 1), 0.5);
        assert_eq!(acc_at_k(&[false, true], 2), 0.0);
        assert_eq!(acc_at_k(&[true, false], 2), 1.0);
    }

    #[test]
    fn pass_at_k_by_hand() {
        // Of the 6 pairs out of 4 samples, 2 correct, one has none: 5/6. Drawing with replacement would give 3/4.
        assert!((pass_at_k(4, 2, 2) - 5.0 / 6.0).abs() < 1e-15);
        assert_eq!(pass_at_k(10, 0, 5), 0.0);
        assert_eq!(pass_at_k(10, 6, 5), 1.0);
        assert_eq!(pass_at_k(10, 10, 1), 1.0);
    }

    #[test]
    fn t36_best_of_n_kl_is_exact_and_below_ln_n() {
        assert_eq!(best_of_n_kl(1), 0.0);
        for (n, kl_nats) in [(4, 0.636), (16, 1.835), (64, 3.175)] {
            assert!((best_of_n_kl(n) - kl_nats).abs() < 5e-4, "n = {n}");
            assert!(best_of_n_kl(n) < (n as f64).ln());
        }
        for (n, expected) in golden("estimators")["best_of_n_kl"].as_object().unwrap() {
            close(best_of_n_kl(n.parse().unwrap()), expected, 1e-9);
        }
    }

    #[test]
    #[should_panic(expected = "acc@3 needs k between 1 and the 2 samples")]
    fn more_than_all_samples_panic() {
        acc_at_k(&[true, false], 3);
    }

    #[test]
    #[should_panic(expected = "pass@0 needs k between 1 and the 2 samples")]
    fn none_of_the_samples_panic() {
        pass_at_k(2, 1, 0);
    }

    proptest! {
        #[test]
        fn a_perfect_ranker_turns_acc_into_pass(n in 1..200usize, correct in 0..200usize, k in 1..200usize) {
            prop_assume!(correct <= n && k <= n);
            let ranked: Vec<bool> = (0..n).map(|i| i < correct).collect();
            prop_assert!((acc_at_k(&ranked, k) - pass_at_k(n, correct, k)).abs() < 1e-12);
        }
    }
}
