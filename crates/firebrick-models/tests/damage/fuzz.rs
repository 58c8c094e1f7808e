//! Files with several kinds of damage at once: another checkpoint or an error, and never a panic.
//!
//! Seeds that once failed are kept in `fuzz.seeds` and tried first. `PROPTEST_CASES=100000` searches longer.

use std::fs;

use firebrick_models::{Architecture, DecoderConfig, save_hugging_face};
use firebrick_testkit::cpu;
use firebrick_text::Tokenizer;
use firebrick_types::Seed;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::{small, use_up};

/// A way to damage a file; places are fractions of its length, so that they mean something in every file.
#[derive(Clone, Debug)]
enum Damage {
    Cut(f64),
    Flip(f64, u8),
    /// A length, an offset or a count that promises too much or too little.
    Number(f64, u64),
    /// Bytes of one place written over another.
    Copy(f64, f64, usize),
    Remove(f64, usize),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let place = || 0.0..1.0_f64;
        let number = prop_oneof![
            Just(0),
            Just(1),
            Just(u64::MAX),
            Just(1 << 63),
            Just(1 << 40),
            Just(u64::from(u32::MAX)),
            any::<u64>(),
            0..512_u64,
        ];
        prop_oneof![
            1 => place().prop_map(Self::Cut),
            6 => (place(), 0..8_u8).prop_map(|(place, bit)| Self::Flip(place, bit)),
            4 => (place(), number).prop_map(|(place, number)| Self::Number(place, number)),
            2 => (place(), place(), 1..64_usize).prop_map(|(from, to, count)| Self::Copy(from, to, count)),
            1 => (place(), 1..32_usize).prop_map(|(place, count)| Self::Remove(place, count)),
        ]
    }

    fn to(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        let at = |place: f64| (place * length as f64) as usize;
        match *self {
            Self::Cut(place) => bytes.truncate(at(place)),
            Self::Flip(place, bit) => bytes[at(place)] ^= 1 << bit,
            Self::Number(place, number) => {
                bytes.iter_mut().skip(at(place)).zip(number.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
            Self::Copy(from, to, count) => {
                let copied = bytes[at(from)..length.min(at(from) + count)].to_vec();
                bytes.iter_mut().skip(at(to)).zip(copied).for_each(|(byte, new)| *byte = new);
            }
            Self::Remove(place, count) => drop(bytes.drain(at(place)..length.min(at(place) + count))),
        }
    }
}

/// A whole folder of `transformers`.
fn folder(architecture: Architecture) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = DecoderConfig { vocab: 260, context: 8, n_layer: 1, d_model: 16, heads: 2, d_ff: 16, architecture };
    save_hugging_face(&config.init(Seed::new(1), &cpu()), &config, dir.path()).unwrap();
    Tokenizer::train(["the cat sat"], 260).unwrap().save(&dir.path().join("tokenizer.json")).unwrap();
    dir
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/damage/fuzz.seeds"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn damaged_gguf_files_never_panic(
        name in prop_oneof![Just("gpt2.gguf"), Just("llama_bpe.gguf"), Just("qwen2.gguf"), Just("spm.gguf")],
        damages in proptest::collection::vec(Damage::any(), 1..5),
    ) {
        let mut bytes = fs::read(small(name)).unwrap();
        damages.iter().for_each(|damage| damage.to(&mut bytes));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        fs::write(&path, bytes).unwrap();
        use_up(&path);
    }

    #[test]
    fn damaged_folders_never_panic(
        architecture in prop_oneof![Just(Architecture::gpt()), Just(Architecture::llama(8))],
        file in prop_oneof![Just("config.json"), Just("model.safetensors"), Just("tokenizer.json")],
        damages in proptest::collection::vec(Damage::any(), 1..5),
    ) {
        let dir = folder(architecture);
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        damages.iter().for_each(|damage| damage.to(&mut bytes));
        fs::write(&path, bytes).unwrap();
        use_up(dir.path());
    }
}
