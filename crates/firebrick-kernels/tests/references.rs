//! Every fused operation against its plain reference: values, gradients, odd shapes, views.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use firebrick_kernels::{
    AdamWStep, Chunk, Heads, KeyValues, Precision, Rotary, SequenceStarts, Window, adamw, attention, attention_cached,
    avg_pool2d, conv2d, conv2d_adjoint, conv2d_in, embedding, gelu, gelu_tanh, layer_norm, linear, linear_in,
    max_pool2d, plain, rectified_moments, relu, rms_norm, rotary, soft_unpool, square_sum, swiglu, token_log_probs,
};
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
    let packed = SequenceStarts::packed([vec![0; 5], vec![5], vec![6; 4], vec![0; 9], vec![9]].concat(), 10);
    let long = SequenceStarts::packed([vec![0; 70], vec![70; 65]].concat(), 135);
    for (sequences, heads, d_head) in [
        (SequenceStarts::causal(2, 1), Heads::same(1), 4),
        (SequenceStarts::causal(3, 5), Heads::same(2), 3),
        (SequenceStarts::causal(1, 150), Heads::same(2), 8),
        (packed.clone(), Heads::same(3), 3),
        (packed, Heads { query: 6, key_value: 2 }, 3),
        (long, Heads { query: 3, key_value: 1 }, 8),
    ] {
        let [batch, seq] = sequences.dims();
        let qkv = numbers([batch, seq, heads.all() * d_head], 7);
        check(qkv, |x| attention(x, heads, &sequences), |x| plain::attention(x, heads, &sequences));
    }
}

#[test]
fn attention_has_the_gradient_of_finite_differences() {
    let sequences = SequenceStarts::packed(vec![0, 0, 0, 3, 3], 5);
    let weights = numbers([1, 5, 4], 3);
    for heads in [Heads::same(2), Heads { query: 2, key_value: 1 }] {
        grad_check(numbers([1, 5, 2 * heads.all()], 5), |x| {
            let weights = like(weights.clone(), &x);
            (attention(x, heads, &sequences) * weights).sum()
        });
    }
}

#[test]
fn queries_share_the_keys_and_values_of_their_group() {
    // Two heads of queries and one of keys and values are the same as two that hold the same.
    let d_head = 3;
    let shared = numbers([1, 6, 4 * d_head], 8);
    let part = |from: usize, to: usize| shared.clone().slice([0..1, 0..6, from * d_head..to * d_head]);
    let whole = Tensor::cat(vec![part(0, 2), part(2, 3), part(2, 3), part(3, 4), part(3, 4)], 2);
    let sequences = SequenceStarts::causal(1, 6);
    let grouped = attention(shared.clone(), Heads { query: 2, key_value: 1 }, &sequences);
    assert_close(grouped, attention(whole, Heads::same(2), &sequences), 1e-6);
}

#[test]
fn rotary_is_its_reference_and_turns_by_the_angle() {
    let heads = Heads { query: 2, key_value: 1 };
    // One pair of three numbers is turned, the third is not; by 90 degrees at position 1.
    let quarter = Rotary::new(&[std::f64::consts::FRAC_PI_2], 3);
    let x = Tensor::<3>::from_floats([[[1., 0., 5., 0., 1., 5., 2., 0., 5., 1., 2., 3.]]], &Device::flex());
    let turned = [0., 1., 5., -1., 0., 5., 0., 2., 5., 1., 2., 3.];
    assert_close(rotary(x, heads, &quarter, &[1]), Tensor::<3>::from_floats([[turned]], &Device::flex()), 1e-6);
    for (d_head, frequencies) in [(4, vec![1.0, 0.1]), (5, vec![0.7]), (40, (0..18).map(|i| 0.9_f64.powi(i)).collect())]
    {
        let table = Rotary::new(&frequencies, 10);
        let positions = [0, 1, 2, 0, 9, 3];
        let x = numbers([2, 3, heads.all() * d_head], 3);
        check(x, |x| rotary(x, heads, &table, &positions), |x| plain::rotary(x, heads, &table, &positions));
    }
}

/// With relative angles alone, moving a whole sequence changes no score.
#[test]
fn rotary_scores_depend_on_distances_alone() {
    let heads = Heads::same(2);
    let table = Rotary::new(&[1.0, 0.25], 50);
    let x = numbers([1, 5, heads.all() * 4], 3);
    let at = |first: usize| {
        let positions = (first..first + 5).collect::<Vec<_>>();
        attention(rotary(x.clone(), heads, &table, &positions), heads, &SequenceStarts::causal(1, 5))
    };
    assert_close(at(0), at(41), 1e-5);
}

#[test]
fn linear_is_its_reference_in_every_argument() {
    for [tokens, d_input, d_output] in [[1, 1, 1], [3, 7, 5], [70, 33, 18]] {
        let (x, weight, bias) =
            (numbers([tokens, d_input], 1), numbers([d_input, d_output], 2), numbers([d_output], 3));
        let (w, b) = (weight.clone(), bias.clone());
        let with_x = |x: Tensor<2>, f: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| {
            let (w, b) = (like(w.clone(), &x), like(b.clone(), &x));
            f(x, w, Some(b))
        };
        check(x.clone(), |x| with_x(x, linear), |x| with_x(x, plain::linear));
        let with_w = |w: Tensor<2>, f: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| {
            let (x, b) = (like(x.clone(), &w), like(bias.clone(), &w));
            f(x, w, Some(b))
        };
        check(weight.clone(), |w| with_w(w, linear), |w| with_w(w, plain::linear));
        let with_b = |b: Tensor<1>, f: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| {
            let (x, w) = (like(x.clone(), &b), like(weight.clone(), &b));
            f(x, w, Some(b))
        };
        check(bias.clone(), |b| with_b(b, linear), |b| with_b(b, plain::linear));
    }
}

#[test]
fn rms_norm_is_its_reference_in_every_argument() {
    for [tokens, d_model] in [[1, 4], [3, 7], [5, 64], [2, 33]] {
        let (x, weight) = (numbers([tokens, d_model], 1), numbers([d_model], 2));
        let of_x = |x: Tensor<2>, f: fn(Tensor<2>, Tensor<1>, f64) -> Tensor<2>| {
            let weight = like(weight.clone(), &x);
            f(x, weight, 1e-5)
        };
        check(x.clone(), |x| of_x(x, rms_norm), |x| of_x(x, plain::rms_norm));
        let of_w = |w: Tensor<1>, f: fn(Tensor<2>, Tensor<1>, f64) -> Tensor<2>| f(like(x.clone(), &w), w, 1e-5);
        check(weight.clone(), |w| of_w(w, rms_norm), |w| of_w(w, plain::rms_norm));
    }
}

#[test]
fn gated_and_approximate_units_are_their_references() {
    for dims in [[1, 2], [3, 14], [5, 64], [2, 66]] {
        check(numbers(dims, 1) * 3.0, gelu_tanh, plain::gelu_tanh);
        check(numbers(dims, 1) * 3.0, swiglu, plain::swiglu);
    }
    grad_check(numbers([2, 6], 2), |x| gelu_tanh(x).sum());
    grad_check(numbers([2, 6], 2), |x| swiglu(x).sum());
    // Far out the approximation is 0 or x, without a NaN.
    let far = gelu_tanh(Tensor::<1>::from_floats([-50.0, 50.0], &Device::flex()));
    assert_close(far, Tensor::<1>::from_floats([0.0, 50.0], &Device::flex()), 1e-6);
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
    let together = bits(attention(beside, Heads::same(2), &SequenceStarts::causal(3, 9)));
    assert_eq!(together[2 * 9 * 8..], bits(attention(alone, Heads::same(2), &SequenceStarts::causal(1, 9))));
}

#[test]
#[should_panic(expected = "the token 7 is not in the vocabulary of 7")]
fn a_target_outside_the_vocabulary_is_a_bug_of_the_caller() {
    let targets = Tensor::<1, Int>::from_data(TensorData::new(vec![7_i64], [1]), &Device::flex());
    let _ = token_log_probs(numbers([1, 7], 1), targets);
}

#[test]
fn a_linear_map_of_rounded_factors_is_its_reference_in_every_argument() {
    for [tokens, d_input, d_output] in [[1, 1, 1], [3, 7, 5], [13, 64, 33], [40, 31, 70]] {
        let [x, weight] = [numbers([tokens, d_input], 1), numbers([d_input, d_output], 2)];
        let bias = numbers([d_output], 3);
        let of = |x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>| linear_in(Precision::Bf16, x, weight, Some(bias));
        assert_close(
            of(x.clone(), weight.clone(), bias.clone()),
            plain::linear_bf16(x.clone(), weight.clone(), Some(bias.clone())),
            2e-6,
        );
        // What flows back is rounded too, to eight bits.
        let exact = gradient(x.clone(), |x| linear(x, weight.clone().autodiff(), None).square().sum());
        let found = gradient(x.clone(), |x| {
            of(x, weight.clone().autodiff(), Tensor::zeros([d_output], &Device::flex()).autodiff()).square().sum()
        });
        let relative = |found: Tensor<2>, exact: Tensor<2>| {
            let size = exact.clone().square().mean().sqrt().into_scalar::<f32>();
            f64::from((found - exact).square().mean().sqrt().into_scalar::<f32>() / size)
        };
        assert!(relative(found, exact) < 0.01);
        let exact = gradient(weight.clone(), |w| linear(x.clone().autodiff(), w, None).square().sum());
        let found =
            gradient(weight.clone(), |w| linear_in(Precision::Bf16, x.clone().autodiff(), w, None).square().sum());
        assert!(relative(found, exact) < 0.01);
    }
}

#[test]
fn a_linear_map_without_bias_and_one_read_the_other_way_round_are_their_reference() {
    for [tokens, d_input, d_output] in [[1, 1, 1], [3, 5, 7], [70, 33, 65]] {
        let (x, weight) = (numbers([tokens, d_input], 1), numbers([d_input, d_output], 2));
        let table = numbers([d_output, d_input], 3);
        type Map = fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>;
        let (fused, reference): (Map, Map) = (linear, plain::linear);
        let of_x = |map: Map, weight: &Tensor<2>| {
            let weight = weight.clone();
            move |x: Tensor<2>| map(x.clone(), like(weight.clone(), &x), None)
        };
        check(x.clone(), of_x(fused, &weight), of_x(reference, &weight));
        let turned = table.clone().transpose();
        check(x.clone(), of_x(fused, &turned), of_x(reference, &turned));
        let of_table = |map: Map| {
            let x = x.clone();
            move |table: Tensor<2>| map(like(x.clone(), &table), table.transpose(), None)
        };
        check(table, of_table(fused), of_table(reference));
        // Columns of a wider matrix.
        let wide = numbers([d_input, 2 * d_output], 4).slice([0..d_input, 1..d_output + 1]);
        check(x.clone(), of_x(fused, &wide), of_x(reference, &wide));
    }
}

#[test]
fn weights_of_half_width_give_the_bits_of_the_widened() {
    for [tokens, d_input, d_output] in [[1, 40, 70], [5, 16, 33], [60, 300, 40]] {
        let (x, bias) = (numbers([tokens, d_input], 1), numbers([d_output], 2));
        for turn in [false, true] {
            let half = if turn {
                numbers([d_output, d_input], 3).cast(DType::BF16).transpose()
            } else {
                numbers([d_input, d_output], 3).cast(DType::BF16)
            };
            let wide = half.clone().cast(DType::F32);
            let bits = |weight: Tensor<2>| {
                let y = linear(x.clone(), weight, Some(bias.clone()));
                y.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(bits(half.clone()), bits(wide.clone()), "{turn}");
            let back = |weight: Tensor<2>| gradient(x.clone(), |x| linear(x, weight.clone().autodiff(), None).sum());
            assert_close(back(half), back(wide), 0.0);
        }
    }
    let table = numbers([7, 5], 1).cast(DType::BF16);
    let ids = || Tensor::<1, Int>::from_ints([3, 0, 3], &Device::flex());
    assert_close(embedding(table.clone(), ids()), embedding(table.cast(DType::F32), ids()), 0.0);
}

#[test]
fn an_embedding_is_its_reference_and_repeated_tokens_add_up() {
    for (ids, entries, width) in
        [(vec![0], 1, 1), (vec![2, 0, 2, 2], 4, 3), ((0..90).map(|i| i * 7 % 20).collect(), 20, 33)]
    {
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [ids.len()]), &Device::flex());
        let table = numbers([entries, width], 1);
        check(table.clone(), |table| embedding(table, ids.clone()), |table| plain::embedding(table, ids.clone()));
        grad_check(table, |table| embedding(table, ids.clone()).square().sum());
    }
}

#[test]
fn a_step_of_adamw_is_its_reference() {
    let step = AdamWStep { beta_1: 0.9, beta_2: 0.95, kept: 0.99, mean_factor: 0.3, root_factor: 2.0, epsilon: 1e-3 };
    for length in [1, 7, 16, 1000] {
        let [w, g, m] = [1, 2, 3].map(|salt| numbers([length], salt));
        let v = numbers([length], 4).square();
        let ours = adamw(w.clone(), g.clone(), m.clone(), v.clone(), step);
        let theirs = plain::adamw(w.clone(), g, m, v, step);
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert_close(ours, theirs, 1e-6);
        }
        assert_close(w.clone(), numbers([length], 1), 0.0); // the weights it was given are as they were
        assert_close(square_sum(w.clone()), plain::square_sum(w), 1e-5);
    }
}

/// In pieces and beside others, on both stores; the fused one with the bits of attention over whole rows.
#[test]
fn attention_through_a_cache_is_attention_over_whole_rows() {
    for (heads, d_head, seq) in
        [(Heads::same(2), 8, 9), (Heads { query: 6, key_value: 2 }, 5, 9), (Heads { query: 3, key_value: 1 }, 16, 140)]
    {
        let width = heads.all() * d_head;
        let rows = numbers([2, seq, width], 1);
        let whole = attention(rows.clone(), heads, &SequenceStarts::causal(2, seq));
        let mut cache = KeyValues::new(3, seq, heads.key_value, d_head, &Device::flex());
        let piece = |row: usize, from: usize, to: usize| {
            rows.clone().slice([row..row + 1, from..to, 0..width]).reshape([to - from, width])
        };
        let chunk = |slot, past, to: usize| Chunk { slot, past, tokens: to - past };
        let steps: [&[(usize, usize, usize, usize)]; 4] = [
            &[(0, 2, 0, 4), (1, 0, 0, 1)],
            &[(1, 0, 1, seq - 2)],
            &[(1, 0, seq - 2, seq - 1), (0, 2, 4, seq)],
            &[(1, 0, seq - 1, seq)],
        ];
        for step in steps {
            let new = step.iter().map(|&(row, _, from, to)| piece(row, from, to)).collect();
            let chunks = step.iter().map(|&(_, slot, from, to)| chunk(slot, from, to)).collect::<Vec<_>>();
            let read = attention_cached(Tensor::cat(new, 0), heads, &mut cache, &chunks);
            let expected = step.iter().map(|&(row, _, from, to)| {
                let part = whole.clone().slice([row..row + 1, from..to, 0..heads.query * d_head]);
                part.reshape([to - from, heads.query * d_head])
            });
            let bits = |x: Tensor<2>| x.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(read), bits(Tensor::cat(expected.collect(), 0)), "{heads:?} {step:?}");
        }
        // A copy goes on from where it was made.
        cache.copy(0, 1, seq - 1);
        let last = attention_cached(piece(1, seq - 1, seq), heads, &mut cache, &[chunk(1, seq - 1, seq)]);
        let expected = whole.slice([1..2, seq - 1..seq, 0..heads.query * d_head]).reshape([1, heads.query * d_head]);
        assert_close(last, expected, 0.0);
    }
}

/// Images and windows: one pixel, padded, strided, wide and narrow pixels, edges that no window reaches.
const IMAGES: [([usize; 4], Window); 6] = [
    ([1, 1, 1, 1], Window { size: 1, stride: 1, padding: 0 }),
    ([2, 6, 5, 3], Window { size: 3, stride: 1, padding: 0 }),
    ([3, 5, 7, 17], Window { size: 3, stride: 1, padding: 1 }),
    ([1, 11, 8, 2], Window { size: 3, stride: 2, padding: 1 }),
    ([2, 9, 9, 1], Window { size: 5, stride: 3, padding: 2 }),
    ([1, 4, 6, 20], Window { size: 2, stride: 2, padding: 0 }),
];

#[test]
fn convolution_is_its_reference_in_every_argument() {
    for (dims, window) in IMAGES {
        for out_channels in [1, 4, 19] {
            let [x, weight, bias] = [
                numbers(dims, 1).reshape([-1]),
                numbers([window.size * window.size * dims[3] * out_channels], 2),
                numbers([out_channels], 3),
            ];
            let of = |conv: fn(Tensor<4>, Tensor<4>, Tensor<1>, Window) -> Tensor<4>| {
                move |x: Tensor<1>, weight: Tensor<1>, bias: Tensor<1>| {
                    let weight = weight.reshape([window.size, window.size, dims[3], out_channels]);
                    conv(x.reshape(dims), weight, bias, window)
                }
            };
            let (fused, reference) = (of(conv2d), of(plain::conv2d));
            let at = |moved: usize, y: &Tensor<1>| {
                let all = [x.clone(), weight.clone(), bias.clone()];
                let mut arguments = all.map(|tensor| like(tensor, y));
                arguments[moved] = y.clone();
                arguments
            };
            for moved in 0..3 {
                let given = [&x, &weight, &bias][moved].clone();
                let with = |conv: &dyn Fn(Tensor<1>, Tensor<1>, Tensor<1>) -> Tensor<4>, y: Tensor<1>| {
                    let [x, weight, bias] = at(moved, &y);
                    // The scale of a sum of so many products.
                    conv(x, weight, bias) / (window.size * window.size * dims[3]) as f32
                };
                check(given, |y| with(&fused, y), |y| with(&reference, y));
            }
        }
    }
}

#[test]
fn a_window_may_lie_beyond_the_edge_altogether() {
    let (x, weight, bias) = (numbers([2, 3, 4, 2], 1), numbers([2, 2, 2, 3], 2), numbers([3], 3));
    for (stride, padding) in [(1, 2), (2, 3), (3, 2)] {
        let window = Window { size: 2, stride, padding };
        let of = |conv: fn(Tensor<4>, Tensor<4>, Tensor<1>, Window) -> Tensor<4>, x: Tensor<4>| {
            conv(x.clone(), like(weight.clone(), &x), like(bias.clone(), &x), window) / 8.0
        };
        check(x.clone(), |x| of(conv2d, x), |x| of(plain::conv2d, x));
    }
}

/// What eight bits hold is not rounded: the two precisions differ in the order of their sums alone.
#[test]
fn a_convolution_of_rounded_factors_is_that_of_bf16_numbers() {
    let eight_bits = |x: Tensor<1>| (x * 16.0).round() / 16.0;
    for (dims, window) in IMAGES {
        for out_channels in [1, 4, 33] {
            let count = window.size * window.size * dims[3];
            let [x, weight] = [numbers([dims.iter().product()], 1), numbers([count * out_channels], 2)].map(eight_bits);
            let of = |precision, x: Tensor<1>, weight: Tensor<1>| {
                let weight = weight.reshape([window.size, window.size, dims[3], out_channels]);
                let bias = like(eight_bits(numbers([out_channels], 3)), &x);
                let y = conv2d_in(precision, x.reshape(dims), weight, bias, window);
                // What flows back are these weights, of eight bits too.
                let flows = numbers([y.shape().num_elements()], 4);
                let flows = eight_bits(flows).reshape(y.dims());
                y.clone() * like(flows, &y)
            };
            let both = [Precision::Bf16, Precision::F32];
            let [found, expected] = both.map(|precision| of(precision, x.clone(), weight.clone()));
            // Sums of such products are exact, in any order.
            assert_close(found, expected, 0.0);
            let of_x = |precision| gradient(x.clone(), |x| of(precision, x.clone(), like(weight.clone(), &x)).sum());
            let [found, expected] = both.map(of_x);
            assert_close(found, expected, 0.0);
            let of_weight = |precision| gradient(weight.clone(), |w| of(precision, like(x.clone(), &w), w).sum());
            let [found, expected] = both.map(of_weight);
            assert_close(found, expected, 0.0);
        }
    }
    // More bits are rounded away, of what flows back too.
    let window = Window { size: 1, stride: 1, padding: 0 };
    let long = Tensor::<4>::from_floats([[[[1.0 + 1.0 / 512.0]]]], &Device::flex());
    let of = |x: Tensor<4>, weight: Tensor<4>| {
        let bias = like(Tensor::zeros([1], &Device::flex()), &x);
        conv2d_in(Precision::Bf16, x, weight, bias, window)
    };
    assert_eq!(of(long.clone(), long.clone()).into_scalar::<f32>(), 1.0);
    let flows = |y: Tensor<4>| (y.clone() * like(long.clone(), &y)).sum();
    let [of_x, of_weight] = [
        gradient(long.clone(), |x| flows(of(x.clone(), like(long.clone(), &x)))),
        gradient(long.clone(), |weight| flows(of(like(long.clone(), &weight), weight))),
    ];
    assert_eq!([of_x.into_scalar::<f32>(), of_weight.into_scalar::<f32>()], [1.0, 1.0]);
}

#[test]
fn threads_change_no_bit_of_a_convolution() {
    let window = Window { size: 3, stride: 1, padding: 1 };
    let (weight, bias) = (numbers([3, 3, 9, 40], 2), numbers([40], 3));
    for batch in [1, 5] {
        let x = numbers([batch, 15, 14, 9], 1);
        for precision in [Precision::F32, Precision::Bf16] {
            let all = || {
                let of = |x: Tensor<4>, weight: Tensor<4>| {
                    conv2d_in(precision, x.clone(), weight, like(bias.clone(), &x), window)
                };
                let flows = |y: Tensor<4>| (y.clone() * like(numbers(y.dims(), 7), &y)).sum();
                [
                    of(x.clone(), weight.clone()).into_data(),
                    gradient(x.clone(), |x| flows(of(x.clone(), like(weight.clone(), &x)))).into_data(),
                    gradient(weight.clone(), |w| flows(of(like(x.clone(), &w), w))).into_data(),
                ]
            };
            let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(all);
            assert_eq!(on(1), on(3), "{batch} images, {precision:?}");
        }
    }
}

#[test]
fn convolution_has_the_gradient_of_finite_differences() {
    let window = Window { size: 3, stride: 2, padding: 1 };
    let (weight, bias) = (numbers([3, 3, 2, 3], 2), numbers([3], 3));
    grad_check(numbers([1, 4, 5, 2], 1), |x| {
        conv2d(x.clone(), like(weight.clone(), &x), like(bias.clone(), &x), window).square().sum() / 50.0
    });
    let x = numbers([2, 4, 3, 2], 4);
    grad_check(weight, |w| {
        conv2d(like(x.clone(), &w), w.clone(), like(bias.clone(), &w), window).square().sum() / 50.0
    });
}

#[test]
fn an_image_is_convolved_to_the_same_bits_in_any_batch() {
    let window = Window { size: 3, stride: 1, padding: 1 };
    let (x, weight, bias) = (numbers([5, 9, 9, 7], 1), numbers([3, 3, 7, 13], 2), numbers([13], 3));
    for precision in [Precision::F32, Precision::Bf16] {
        let of = |x: Tensor<4>| conv2d_in(precision, x, weight.clone(), bias.clone(), window);
        let whole = of(x.clone());
        for index in 0..5 {
            let alone = of(x.clone().narrow(0, index, 1));
            assert_eq!(alone.to_data(), whole.clone().narrow(0, index, 1).to_data());
        }
    }
}

/// O1: ⟨conv(x), y⟩ = ⟨x, adjoint(y)⟩, whatever the stride and the padding, and where windows leave pixels out.
#[test]
fn o1_the_adjoint_of_a_convolution_is_that() {
    let windows = [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 3, 2), (2, 2, 0), (4, 3, 3)];
    for (size, stride, padding) in windows {
        let window = Window { size, stride, padding };
        let (x, weight) = (numbers([2, 7, 9, 3], 1), numbers([size, size, 3, 4], 2));
        let convolved = conv2d(x.clone(), weight.clone(), Tensor::zeros([4], &Device::flex()), window);
        let y = numbers(convolved.dims(), 3);
        let adjoint = conv2d_adjoint(y.clone(), weight, window, [7, 9]);
        let scale = (convolved.clone() * y.clone()).abs().sum();
        assert_close((x * adjoint).sum() / scale.clone(), (convolved * y).sum() / scale, 1e-5);
    }
}

/// O2: with a stride of 1 the adjoint is a convolution with the weights flipped, and torch's transposed convolution.
#[test]
fn o2_the_adjoint_is_the_transposed_convolution() {
    let (y, weight) = (numbers([2, 5, 6, 4], 1), numbers([3, 3, 2, 4], 2));
    let found = conv2d_adjoint(y.clone(), weight.clone(), Window { size: 3, stride: 1, padding: 1 }, [5, 6]);
    let options = burn::tensor::ops::ConvTransposeOptions::new([1, 1], [1, 1], [0, 0], [1, 1], 1);
    let [y, weight] = [y.permute([0, 3, 1, 2]), weight.permute([3, 2, 0, 1])];
    let expected = burn::tensor::module::conv_transpose2d(y, weight, None, options);
    assert_close(found, expected.permute([0, 2, 3, 1]), 1e-5);
}

#[test]
fn pooling_by_means_is_a_convolution_with_equal_weights() {
    for (size, stride, padding) in [(2, 2, 0), (3, 2, 1), (2, 1, 1)] {
        let window = Window { size, stride, padding };
        let x = numbers([2, 5, 6, 1], 1);
        let weight = Tensor::ones([size, size, 1, 1], &Device::flex()) / (size * size) as f32;
        let expected = conv2d(x.clone(), weight, Tensor::zeros([1], &Device::flex()), window);
        assert_close(avg_pool2d(x, window), expected, 1e-6);
    }
}

#[test]
fn max_pooling_is_its_reference() {
    for (dims, window) in IMAGES.into_iter().filter(|(_, window)| 2 * window.padding <= window.size) {
        check(numbers(dims, 5), |x| max_pool2d(x, window), |x| plain::max_pool2d(x, window));
    }
    // Beyond the edge there is no number, not 0.
    let window = Window { size: 2, stride: 1, padding: 1 };
    let below_zero = Tensor::<4>::from_floats([[[[-3.0], [-2.0]]]], &Device::flex());
    assert_eq!(max_pool2d(below_zero, window).to_data(), TensorData::from([[[[-3.0f32], [-2.0], [-2.0]]; 2]]));
}

#[test]
fn of_equal_numbers_the_first_gets_the_gradient() {
    let x = Tensor::<4>::ones([1, 2, 4, 1], &Device::flex());
    let g = gradient(x, |x| max_pool2d(x, Window { size: 2, stride: 2, padding: 0 }).sum());
    assert_eq!(g.to_data(), TensorData::from([[[[1.0f32], [0.0], [1.0], [0.0]], [[0.0]; 4]]]));
}

#[test]
fn rectified_numbers_are_their_reference() {
    check(numbers([3, 37], 6), relu, plain::relu);
    let at_zero = Tensor::<1>::from_floats([0.0, -1.0, 2.0], &Device::flex());
    assert_eq!(gradient(at_zero, |x| relu(x).sum()).to_data(), TensorData::from([0.0f32, 0.0, 1.0]));
}

#[test]
#[should_panic(expected = "a window of 5 pixels on 2 and twice 1")]
fn a_window_larger_than_the_image_is_a_bug_of_the_caller() {
    _ = max_pool2d(numbers([1, 2, 2, 1], 1), Window { size: 5, stride: 1, padding: 1 });
}

#[test]
fn moments_of_rectified_numbers_are_their_reference() {
    let numbers = |salt: usize, least: f32| {
        let numbers = (0..300).map(|index| ((index * 37 + salt) % 101) as f32 / 12.0 + least).collect::<Vec<_>>();
        Tensor::<2>::from_data(TensorData::new(numbers, [3, 100]), &Device::flex())
    };
    // Far below 0 and far above it, and some without variance.
    let (mean, variance) = (numbers(11, -4.0), numbers(5, -0.5).clamp_min(0.0));
    let [found, expected] =
        [rectified_moments(mean.clone(), variance.clone()), plain::rectified_moments(mean.clone(), variance.clone())];
    assert_close(found.0.clone(), expected.0, 2e-6);
    assert_close(found.1.clone(), expected.1, 2e-5);
    // A number that is known is rectified, to the bit.
    let (found, expected) = rectified_moments(mean.clone(), mean.zeros_like());
    assert_eq!((found.to_data(), expected.to_data()), (relu(mean.clone()).to_data(), mean.zeros_like().to_data()));
}

#[test]
fn what_is_unpooled_is_its_reference() {
    let positive = |dims: [usize; 4], salt: u64| numbers(dims, salt).square() + 0.1;
    for [pool, channels] in [[2, 3], [3, 17], [1, 5]] {
        let (large, small) = ([2, 4 * pool, 3 * pool, channels], [2, 4, 3, channels]);
        let given = || (numbers(small, 1), numbers(large, 2), positive(large, 3), numbers(large, 4) * 3.0);
        let (pooled, mean, variance, log_prior) = given();
        let found = soft_unpool(pooled, mean, variance, log_prior, &[1, 0]);
        let (pooled, mean, variance, log_prior) = given();
        let expected = plain::soft_unpool(pooled.clone(), mean, variance, log_prior, &[1, 0]);
        assert_close(found.0.clone(), expected.0, 1e-5);
        assert_close(found.1, expected.1, 1e-5);
        // What was divided adds up.
        let parts = found.0.reshape([2, 4, pool, 3, pool, channels]);
        assert_close(parts.sum_dim(2).sum_dim(4).reshape(small), pooled, 1e-5);
    }
}

#[test]
fn what_is_unpooled_leaves_what_others_hold() {
    let positive = numbers([1, 4, 4, 2], 3).square() + 0.1;
    let (pooled, log_prior) = (numbers([1, 2, 2, 2], 1), numbers([1, 4, 2, 4], 4).permute([0, 1, 3, 2]));
    // One tensor as mean and as variance, and held here as well.
    let found = soft_unpool(pooled.clone(), positive.clone(), positive.clone(), log_prior.clone(), &[0]);
    let expected = plain::soft_unpool(pooled, positive.clone(), positive.clone(), log_prior, &[0]);
    assert_close(found.0, expected.0, 1e-5);
    assert_close(found.1, expected.1, 1e-5);
    assert_eq!(positive.to_data(), (numbers([1, 4, 4, 2], 3).square() + 0.1).to_data());
}

#[test]
#[should_panic(expected = "2 windows below each other in 5 pixels")]
fn windows_that_leave_pixels_out_are_refused() {
    let x = numbers([1, 5, 4, 1], 1);
    _ = soft_unpool(numbers([1, 2, 2, 1], 2), x.clone(), x.clone(), x, &[0]);
}

#[test]
#[should_panic(expected = "a kind that the prior does not have")]
fn a_kind_that_is_not_there_is_refused() {
    let x = numbers([1, 4, 4, 1], 1);
    _ = soft_unpool(numbers([1, 2, 2, 1], 2), x.clone(), x.clone(), x, &[1]);
}

#[test]
fn an_unlikely_pixel_gets_nothing() {
    let (one, far) = (
        Tensor::<4>::ones([1, 2, 2, 1], &Device::flex()),
        Tensor::from_floats([[[[1.0], [-40.0]], [[-40.0], [-40.0]]]], &Device::flex()),
    );
    let (unpooled, switches) =
        soft_unpool(Tensor::full([1, 1, 1, 1], 3.0, &Device::flex()), far, one.clone() * 0.5, one, &[0]);
    assert_eq!(unpooled.to_data(), TensorData::from([[[[3.0f32], [0.0]], [[0.0], [0.0]]]]));
    assert_eq!(switches.to_data(), TensorData::from([[[[1.0f32], [0.0]], [[0.0], [0.0]]]]));
}

#[test]
fn few_channels_are_convolved_to_the_bits_of_many() {
    // More than a vector of places in a row, and fewer; a window of one pixel, and one that reaches beyond the edge.
    for (size, [height, width], padding) in
        [(5, [4, 39], 2), (3, [7, 5], 0), (1, [3, 33], 0), (2, [6, 6], 1), (3, [90, 130], 1)]
    {
        let window = Window { size, stride: 1, padding };
        let (x, weight, bias) = (numbers([2, height, width, 3], 1), numbers([size, size, 3, 20], 2), numbers([20], 3));
        let [down, across] = [height, width].map(|length| window.places(length));
        let all = conv2d(x.clone(), weight.clone(), bias.clone(), window);
        for few in [1, 6, 7] {
            let (weight, bias) =
                (weight.clone().slice([0..size, 0..size, 0..3, 0..few]), bias.clone().narrow(0, 0, few));
            let found = conv2d(x.clone(), weight.clone(), bias.clone(), window);
            let expected = all.clone().slice([0..2, 0..down, 0..across, 0..few]);
            assert_eq!(found.to_data(), expected.to_data(), "{window:?}, {few} channels");
            // One image is divided among threads.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            let first = pool.install(|| conv2d(x.clone().narrow(0, 0, 1), weight, bias, window));
            assert_eq!(first.to_data(), expected.narrow(0, 0, 1).to_data(), "{window:?}, {few} channels, 3 threads");
        }
    }
}
