//! Numbers computed by PyTorch in float64, to hold our own against.
//!
//! `goldens/make.py` made the files and states their conventions: which way masks point, what a `grad_` field is the
//! gradient of, what is shifted.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use serde_json::{Map, Value};

/// Token log-probabilities, cross-entropy, entropy, KL and its estimators (T-05).
pub const LM: &str = include_str!("../goldens/lm.json");
/// KL over the top k tokens and the rest (A-07).
pub const DISTILL: &str = include_str!("../goldens/distill.json");
/// Ranked loss (A-16) and composite loss (A-33).
pub const PREFERENCE: &str = include_str!("../goldens/preference.json");
/// GAE (T-15), PPO losses, whitening, KL-shaped rewards, group advantages.
pub const RL: &str = include_str!("../goldens/rl.json");
/// AdamW, global-norm clipping, the two epsilon forms (T-19), schedules.
pub const OPTIM: &str = include_str!("../goldens/optim.json");
/// A GPT-2-like decoder: weights, logits, loss, gradient norms.
pub const TRANSFORMER: &str = include_str!("../goldens/transformer.json");

/// One golden case: inputs, outputs and gradients by name.
///
/// Every accessor panics where the field is missing (the message lists the fields there are), has another type, or is a
/// ragged list. The flat accessors give the elements in row-major order.
#[derive(Clone, Debug)]
pub struct Golden {
    case: String,
    fields: Map<String, Value>,
}

/// The case of that name in a golden file, for instance in [`LM`].
///
/// # Panics
/// If the text is not a golden file, or has no such case: the message lists the cases there are.
#[track_caller]
pub fn golden(json: &str, case: &str) -> Golden {
    let file: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("not a golden file: {error}"));
    let cases = file["cases"].as_object().expect("a golden file has an object `cases`");
    match cases.get(case) {
        Some(Value::Object(fields)) => Golden { case: case.to_owned(), fields: fields.clone() },
        _ => panic!("no golden case `{case}`; there are {:?}", cases.keys().collect::<Vec<_>>()),
    }
}

impl Golden {
    /// The names of the fields, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The shape of a field; empty for a number.
    #[track_caller]
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.read(name, |_| Some(())).1
    }

    /// A number.
    #[track_caller]
    pub fn number(&self, name: &str) -> f64 {
        let (numbers, shape) = self.read(name, Value::as_f64);
        assert!(shape.is_empty(), "`{name}` of golden case `{}` is a list, not a number", self.case);
        numbers[0]
    }

    /// The elements of a list of numbers.
    #[track_caller]
    pub fn floats(&self, name: &str) -> Vec<f64> {
        self.read(name, Value::as_f64).0
    }

    /// The elements of a list of integers.
    #[track_caller]
    pub fn ints(&self, name: &str) -> Vec<i64> {
        self.read(name, Value::as_i64).0
    }

    /// The elements of a list of truth values.
    #[track_caller]
    pub fn bools(&self, name: &str) -> Vec<bool> {
        self.read(name, Value::as_bool).0
    }

    /// A list of numbers as a tensor; true and false as 1 and 0, so that a mask can be had as a factor too.
    #[track_caller]
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let number = |value: &Value| value.as_f64().or(value.as_bool().map(|truth| f64::from(u8::from(truth))));
        let (numbers, shape) = self.read(name, number);
        Tensor::from_data(TensorData::new(numbers, self.ranked::<D>(name, shape)), device)
    }

    /// A list of integers as a tensor.
    #[track_caller]
    pub fn int_tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D, Int> {
        let (ints, shape) = self.read(name, Value::as_i64);
        Tensor::from_data(TensorData::new(ints, self.ranked::<D>(name, shape)), device)
    }

    /// A list of truth values as a tensor.
    #[track_caller]
    pub fn bool_tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D, Bool> {
        let (bools, shape) = self.read(name, Value::as_bool);
        Tensor::from_data(TensorData::new(bools, self.ranked::<D>(name, shape)), device)
    }

    #[track_caller]
    fn ranked<const D: usize>(&self, name: &str, shape: Vec<usize>) -> [usize; D] {
        let found = shape.len();
        shape
            .try_into()
            .unwrap_or_else(|_| panic!("`{name}` of golden case `{}` has {found} dimensions, not {D}", self.case))
    }

    /// The elements of a field, each read by `element`, and its shape.
    #[track_caller]
    fn read<T>(&self, name: &str, element: impl Fn(&Value) -> Option<T>) -> (Vec<T>, Vec<usize>) {
        let case = &self.case;
        let Some(field) = self.fields.get(name) else {
            panic!("no `{name}` in golden case `{case}`; there are {:?}", self.names().collect::<Vec<_>>());
        };
        // Lists of one depth are opened together, so that their lengths can be compared.
        let (mut values, mut shape) = (vec![field], Vec::new());
        while let Some(Value::Array(first)) = values.first() {
            let size = first.len();
            shape.push(size);
            let lists = values.iter().map(|value| value.as_array().filter(|list| list.len() == size));
            let lists: Option<Vec<&Vec<Value>>> = lists.collect();
            let lists = lists.unwrap_or_else(|| panic!("`{name}` of golden case `{case}` is ragged"));
            values = lists.into_iter().flatten().collect();
        }
        let elements: Option<Vec<T>> = values.into_iter().map(element).collect();
        (elements.unwrap_or_else(|| panic!("`{name}` of golden case `{case}` has elements of another type")), shape)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::{log_softmax, softplus};

    use super::*;
    use crate::{assert_close, cpu, grad_check, gradient};

    const SMALL: &str = r#"{ "cases": { "one": {
        "pi": 3.141592653589793, "rows": [[1, 2, 3], [4, 5, 6]], "mask": [true, false], "ragged": [[1, 2], [3]],
        "mixed": [1, [2]], "halves": [0.5]
    } } }"#;

    fn small() -> Golden {
        golden(SMALL, "one")
    }

    #[test]
    fn fields_are_read_by_type() {
        assert_eq!(small().number("pi"), std::f64::consts::PI);
        assert_eq!(small().ints("rows"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(small().floats("rows"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(small().bools("mask"), [true, false]);
        assert_eq!((small().shape("rows"), small().shape("pi")), (vec![2, 3], vec![]));
        assert_eq!(small().names().collect::<Vec<_>>(), ["pi", "rows", "mask", "ragged", "mixed", "halves"]);
    }

    #[test]
    fn tensors_keep_shape_and_order() {
        let rows = small().tensor::<2>("rows", &cpu());
        assert_eq!(rows.dims(), [2, 3]);
        assert_close(rows.slice([1..2, 0..1]).sum(), 4.0, 0.0);
        assert_eq!(small().int_tensor::<2>("rows", &cpu()).sum().into_scalar::<i64>(), 21);
        assert_close(small().bool_tensor::<1>("mask", &cpu()).float(), [1.0, 0.0], 0.0);
        assert_close(small().tensor::<1>("mask", &cpu()), [1.0, 0.0], 0.0);
    }

    #[test]
    #[should_panic(expected = "no golden case `two`; there are [\"one\"]")]
    fn a_missing_case_names_those_there_are() {
        golden(SMALL, "two");
    }

    #[test]
    #[should_panic(expected = "no `tau` in golden case `one`; there are [\"pi\", \"rows\"")]
    fn a_missing_field_names_those_there_are() {
        small().number("tau");
    }

    #[test]
    #[should_panic(expected = "`ragged` of golden case `one` is ragged")]
    fn a_ragged_list_is_refused() {
        small().floats("ragged");
    }

    #[test]
    #[should_panic(expected = "`mixed` of golden case `one` has elements of another type")]
    fn a_list_of_mixed_depth_is_refused() {
        small().floats("mixed");
    }

    #[test]
    #[should_panic(expected = "`halves` of golden case `one` has elements of another type")]
    fn a_half_is_no_integer() {
        small().ints("halves");
    }

    #[test]
    #[should_panic(expected = "`rows` of golden case `one` is a list, not a number")]
    fn a_list_is_no_number() {
        small().number("rows");
    }

    #[test]
    #[should_panic(expected = "`rows` of golden case `one` has 2 dimensions, not 3")]
    fn ranks_must_agree() {
        small().tensor::<3>("rows", &cpu());
    }

    /// A shape for every field of every file: none is ragged, and gradients have the shapes of their inputs.
    #[test]
    fn every_file_is_sound() {
        for json in [LM, DISTILL, PREFERENCE, RL, OPTIM, TRANSFORMER] {
            let file: Value = serde_json::from_str(json).unwrap();
            assert!(file["made_with"]["torch"].is_string() && file["about"].is_string());
            for name in file["cases"].as_object().unwrap().keys() {
                let case = golden(json, name);
                for field in case.names() {
                    let shape = case.shape(field);
                    if let Some(input) = field.strip_prefix("grad_").filter(|input| case.names().any(|n| n == *input)) {
                        assert_eq!(shape, case.shape(input), "{name}.{field}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_kl_agrees_with_its_definition() {
        let case = golden(LM, "kl");
        let (p, q) = (case.tensor::<3>("p_logits", &cpu()), case.tensor::<3>("q_logits", &cpu()));
        let kl = |p: Tensor<3>, q: Tensor<3>| {
            let (log_p, log_q) = (log_softmax(p, 2), log_softmax(q, 2));
            (log_p.clone().exp() * (log_p - log_q)).sum_dim(2).squeeze_dim::<2>(2)
        };
        assert_close(kl(p.clone(), q.clone()), case.floats("kl"), 1e-5);
        let mask = case.tensor::<2>("mask", &cpu());
        let of_p = |p| (kl(p, q.clone()) * mask.clone()).sum() / mask.clone().sum();
        assert_close(gradient(p.clone(), of_p), case.floats("grad_p_logits"), 1e-6);
        let of_q = |q| (kl(p.clone(), q) * mask.clone()).sum() / mask.clone().sum();
        assert_close(gradient(q.clone(), of_q), case.floats("grad_q_logits"), 1e-6);
        grad_check(p.clone(), of_p);
    }

    #[test]
    fn the_ranked_loss_agrees_with_its_definition() {
        let case = golden(PREFERENCE, "ranked");
        let (chosen, rejected) = (case.tensor::<1>("chosen", &cpu()), case.tensor::<1>("rejected", &cpu()));
        let loss = |chosen| softplus(rejected.clone() - chosen, 1.0).mean();
        assert_close(loss(chosen.clone()), case.number("loss"), 1e-6);
        assert_close(gradient(chosen, loss), case.floats("grad_chosen"), 1e-6);
    }

    #[test]
    fn the_decoder_has_every_weight_and_its_gradient_norm() {
        let (weights, norms) = (golden(TRANSFORMER, "weights"), golden(TRANSFORMER, "gradient_norms"));
        assert_eq!(weights.names().collect::<Vec<_>>(), norms.names().collect::<Vec<_>>());
        // 11·8 + 6·8 + 2·(4·8 + 8·24 + 24 + 8·8 + 8 + 8·32 + 32 + 32·8 + 8) + 2·8 = 136 + 2·872 + 16
        let count: usize = weights.names().map(|name| weights.shape(name).iter().product::<usize>()).sum();
        assert_eq!(count, 1896);
        assert!(norms.names().all(|name| norms.number(name) > 0.0));
    }
}
