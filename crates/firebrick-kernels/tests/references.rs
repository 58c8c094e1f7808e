//! Every fused operation against its plain reference: values, gradients, odd shapes, views.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::{Reach, attention, gelu, layer_norm, plain, token_log_probs};
use firebrick_testkit::{assert_close, grad_check, gradient};

/// Numbers that look random, in [−2, 2).
fn numbers<const D: usize>(dims: [usize; D], salt: u64) -> Tensor<D> {
    let count = dims.iter().product::<usize>() as u64;
    let value = |index: u64| {
        let mixed = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03));
        ((mixed >> 40) as f32 / (1 << 24) as f32) * 4.0 - 2.0
    };
    Tensor::from_data(TensorData::new((0..count).map(value).collect::<Vec<_>>(), dims), &Device::flex())
}

/// Both functions give the same values at `x`, and the same gradient of a weighted sum of their results.
fn check<const D: usize, const E: usize>(
    x: Tensor<D>,
    fused: impl Fn(Tensor<D>) -> Tensor<E>,
    reference: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let (ours, theirs) = (fused(x.clone()), reference(x.clone()));
    assert_close(ours.clone(), theirs, 2e-6);
    let weights = numbers(ours.dims(), 99);
    let weighted = |y: Tensor<E>| {
        let weights = weights.clone();
        let weights = if y.is_autodiff() { weights.autodiff() } else { weights };
        (y * weights).sum()
    };
    assert_close(gradient(x.clone(), |x| weighted(fused(x))), gradient(x, |x| weighted(reference(x))), 2e-5);
}

fn like<const D: usize, const E: usize>(tensor: Tensor<D>, other: &Tensor<E>) -> Tensor<D> {
    if other.is_autodiff() { tensor.autodiff() } else { tensor }
}

#[test]
fn gelu_is_its_reference() {
    for dims in [[1, 1], [3, 7], [5, 64], [2, 33]] {
        check(numbers(dims, 1) * 3.0, gelu, plain::gelu);
    }
    grad_check(numbers([2, 5], 2), |x| gelu(x).sum());
}

#[test]
fn layer_norm_is_its_reference_in_every_argument() {
    for [tokens, d_model] in [[1, 4], [3, 7], [5, 64], [2, 33]] {
        let (x, weight, bias) = (numbers([tokens, d_model], 1), numbers([d_model], 2), numbers([d_model], 3));
        let of = |norm: fn(Tensor<2>, Tensor<1>, Tensor<1>, f64) -> Tensor<2>| {
            let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
            move |moved: Option<Tensor<2>>, w: Option<Tensor<1>>, b: Option<Tensor<1>>| {
                let training = moved.as_ref().is_some_and(Tensor::is_autodiff)
                    || w.as_ref().or(b.as_ref()).is_some_and(Tensor::is_autodiff);
                let at = |tensor: Tensor<1>| if training { tensor.autodiff() } else { tensor };
                let x = moved.unwrap_or_else(|| if training { x.clone().autodiff() } else { x.clone() });
                norm(x, w.unwrap_or_else(|| at(weight.clone())), b.unwrap_or_else(|| at(bias.clone())), 1e-5)
            }
        };
        let (fused, reference) = (of(layer_norm), of(plain::layer_norm));
        check(x.clone(), |x| fused(Some(x), None, None), |x| reference(Some(x), None, None));
        check(weight.clone(), |w| fused(None, Some(w), None), |w| reference(None, Some(w), None));
        check(bias.clone(), |b| fused(None, None, Some(b)), |b| reference(None, None, Some(b)));
    }
}

#[test]
fn attention_is_its_reference_over_whole_and_packed_rows() {
    let packed = Reach::packed([vec![0; 5], vec![5], vec![6; 4], vec![0; 9], vec![9]].concat(), 10);
    let long = Reach::packed([vec![0; 70], vec![70; 65]].concat(), 135);
    for (reach, heads, d_model) in [
        (Reach::causal(2, 1), 1, 4),
        (Reach::causal(3, 5), 2, 6),
        (Reach::causal(1, 150), 2, 16),
        (packed, 3, 9),
        (long, 1, 8),
    ] {
        let [batch, seq] = reach.dims();
        let qkv = numbers([batch, seq, 3 * d_model], 7);
        check(qkv, |x| attention(x, heads, &reach), |x| plain::attention(x, heads, &reach));
    }
}

#[test]
fn attention_has_the_gradient_of_finite_differences() {
    let reach = Reach::packed(vec![0, 0, 0, 3, 3], 5);
    let weights = numbers([1, 5, 4], 3);
    grad_check(numbers([1, 5, 12], 5), |x| {
        let weights = like(weights.clone(), &x);
        (attention(x, 2, &reach) * weights).sum()
    });
}

#[test]
fn token_log_probs_are_their_reference() {
    for [tokens, vocab] in [[1, 1], [4, 7], [3, 100]] {
        let ids = (0..tokens as i64).map(|token| (token * 5) % vocab as i64).collect::<Vec<_>>();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens]), &Device::flex());
        let targets = |x: &Tensor<2>| if x.is_autodiff() { targets.clone().autodiff() } else { targets.clone() };
        check(
            numbers([tokens, vocab], 4),
            |x| token_log_probs(x.clone(), targets(&x)),
            |x| plain::token_log_probs(x.clone(), targets(&x)),
        );
    }
}

/// A transposed view has its elements out of order.
#[test]
fn views_are_read_as_what_they_show() {
    check(numbers([6, 4], 1), |x| gelu(x.transpose()), |x| plain::gelu(x.transpose()));
    let one = Tensor::ones([6], &Device::flex());
    let norm = |x: Tensor<2>, f: fn(Tensor<2>, Tensor<1>, Tensor<1>, f64) -> Tensor<2>| {
        let one = like(one.clone(), &x);
        f(x.transpose(), one.clone(), one, 1e-5)
    };
    check(numbers([6, 4], 2), |x| norm(x, layer_norm), |x| norm(x, plain::layer_norm));
}

#[test]
fn a_row_gives_the_same_bits_whatever_stands_beside_it() {
    let bits = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
    let alone = numbers([1, 9, 24], 5);
    let beside = Tensor::cat(vec![numbers([2, 9, 24], 6), alone.clone()], 0);
    let together = bits(attention(beside, 2, &Reach::causal(3, 9)));
    assert_eq!(together[2 * 9 * 8..], bits(attention(alone, 2, &Reach::causal(1, 9))));
}

#[test]
#[should_panic(expected = "the target 7 is not in the vocabulary of 7")]
fn a_target_outside_the_vocabulary_is_a_bug_of_the_caller() {
    let targets = Tensor::<1, Int>::from_data(TensorData::new(vec![7_i64], [1]), &Device::flex());
    let _ = token_log_probs(numbers([1, 7], 1), targets);
}
