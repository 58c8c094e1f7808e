//! Reward models as classes for sequence classification with one label.

use std::path::Path;

use burn::tensor::Device;
use firebrick_tensor::{Parameters, ParametersError};
use firebrick_types::Seed;
use serde_json::{Value, json};

use super::{CONFIG, KNOWN, OUTPUTS, WEIGHTS, describe, described, weights};
use crate::config::Architecture;
use crate::files::json as files;
use crate::{DecoderConfig, Error, ScoredDecoder};

/// The end of the names of classes whose head scores a sequence.
const CLASSIFIER: &str = "ForSequenceClassification";

/// The head of such a class.
const HEAD: [&str; 2] = ["score.weight", "score.bias"];

/// Whether the `config.json` of a folder is that of a class for sequence classification; none where it names no class.
///
/// # Errors
/// If the `config.json` is missing, or no JSON object.
pub(crate) fn is_classifier(dir: &Path) -> Result<Option<bool>, Error> {
    let path = dir.join(CONFIG);
    let settings = files::json(&path)?;
    let Some(classes) = settings.get("architectures") else { return Ok(None) };
    let classes =
        classes.as_array().ok_or_else(|| settings.wrong("architectures", "a list of the names of classes"))?;
    Ok(Some(classes.iter().filter_map(Value::as_str).any(|class| class.ends_with(CLASSIFIER))))
}

/// Reads a decoder with a scalar head from a folder of a class for sequence classification with one label.
///
/// Such a class has no output over tokens, so that the body's is the transposed embedding, unless the folder has one.
///
/// # Errors
/// As [`open_hugging_face`], and if there are several labels or no head.
pub(crate) fn open_classifier(dir: &Path, device: &Device) -> Result<(ScoredDecoder, DecoderConfig), Error> {
    let (described, family, mut config) = described(dir)?;
    let labels = described.labels();
    if labels != 1 {
        return Err(Error::Labels { path: dir.join(CONFIG), labels });
    }
    let failed = |source| Error::Parameters { path: dir.join(WEIGHTS), source };
    let mut checkpoint = weights(dir, |name| !family.is_derived(&config, name))?;
    config.architecture.tied |= OUTPUTS.iter().all(|name| checkpoint.get(name).is_none());
    let mut parameters = Parameters::default();
    for (ours, theirs, found, expected) in [
        ("head.weight", HEAD[0], vec![config.d_model, 1], vec![1, config.d_model]),
        ("head.bias", HEAD[1], vec![1], vec![1]),
    ] {
        if let Some((shape, _)) = checkpoint.get(theirs)
            && shape != expected
        {
            let (name, found) = (theirs.to_owned(), shape.to_vec());
            return Err(failed(ParametersError::Shape { name, found, expected }));
        }
        match checkpoint.remove(theirs) {
            Some(values) => parameters.insert(ours, found, values),
            None if theirs == HEAD[1] => parameters.insert(ours, found, vec![0.0]),
            None => return Err(failed(ParametersError::Missing(vec![theirs.to_owned()]))),
        }
    }
    let body = family.parameters(&config, checkpoint).map_err(failed)?;
    let blank = ScoredDecoder::from_body(config.blank(device), Seed::new(0));
    let model = parameters.with("body.", body).load(blank).map_err(failed)?;
    Ok((model, config))
}

/// A decoder with a scalar head as a class for sequence classification with one label: its `config.json` and its tensors.
///
/// # Errors
/// If the head has a bias, or none of the architectures of `transformers` is this one.
pub(crate) fn classifier(model: &ScoredDecoder, config: &DecoderConfig) -> Result<(Value, Parameters), Error> {
    // There is no output over tokens.
    let tied = DecoderConfig { architecture: Architecture { tied: true, ..config.architecture }, ..*config };
    let (family, mut described) = describe(&tied).ok_or(Error::NoSuchArchitecture { known: KNOWN })?;
    let parameters = Parameters::of(model);
    let values = |name: &str| parameters.get(name).expect("a scored decoder has a head").1;
    if let Some(&bias) = values("head.bias").iter().find(|&&bias| bias != 0.0) {
        return Err(Error::HeadBias { bias });
    }
    let mut checkpoint = family.checkpoint(&tied, &parameters.under("body."));
    checkpoint.insert(HEAD[0], vec![1, config.d_model], values("head.weight").to_vec());
    let class = described["architectures"][0].as_str().expect("an architecture is described by its class");
    let body = ["ForCausalLM", "LMHeadModel"].iter().find_map(|end| class.strip_suffix(end));
    described["architectures"] = json!([format!("{}{CLASSIFIER}", body.expect("a class of language models"))]);
    described["id2label"] = json!({"0": "reward"});
    described["label2id"] = json!({"reward": 0});
    described["problem_type"] = json!("regression");
    Ok((described, checkpoint))
}
