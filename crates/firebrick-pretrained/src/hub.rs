//! Models of the Hugging Face Hub, fetched once and kept in its cache.

use std::fs;
use std::path::PathBuf;

use firebrick_data::hub::Hub;
use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use crate::Error;

/// Files beside the weights, as far as a model has them.
const FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The folder of a model, `owner/name`, for [`open`](crate::open).
///
/// What is missing in the cache is fetched; `progress` is told the file, the bytes there so far, and the bytes there will be. Where the
/// hub can't be asked, the cache will do.
///
/// # Errors
/// If the name is none, the hub fails or may not be asked and the cache does not have the model, or the model has no weights that
/// could be read.
pub fn download(repo: &str, hub: &Hub, mut progress: impl FnMut(&str, u64, u64)) -> Result<PathBuf, Error> {
    if !is_name(repo) {
        return Err(Error::HubName { repo: repo.to_owned() });
    }
    if hub.offline {
        let missing = || Error::NotCached { repo: repo.to_owned(), cache: hub.cache.clone() };
        return cached(repo, hub).ok_or_else(missing);
    }
    fetch(repo, hub, &mut progress).or_else(|error| {
        let snapshot = cached(repo, hub).ok_or(error)?;
        tracing::warn!(repo, endpoint = hub.endpoint, "the hub cannot be asked: using the cached model");
        Ok(snapshot)
    })
}

fn fetch(repo: &str, hub: &Hub, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<PathBuf, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Hub {
        repo: repo.to_owned(),
        endpoint: hub.endpoint.clone(),
        source,
    };
    let cache = Cache::new(hub.cache.clone());
    let api = ApiBuilder::from_cache(cache.clone()).with_endpoint(hub.endpoint.clone()).with_progress(false).build();
    let api = api.map_err(|error| failed(error.into()))?;
    let info = api.model(repo.to_owned()).info().map_err(|error| failed(error.into()))?;
    let files = info.siblings.iter().map(|file| file.rfilename.as_str()).collect::<Vec<_>>();
    let wanted = wanted(&files).ok_or_else(|| Error::NoWeights { repo: repo.to_owned() })?;
    // One revision for all files, even if the model changes meanwhile.
    let pinned = api.repo(Repo::with_revision(repo.to_owned(), RepoType::Model, info.sha.clone()));
    let snapshot = model_folder(repo, hub).join("snapshots").join(&info.sha);
    for file in wanted {
        if !snapshot.join(file).exists() {
            let report = Report { file, done: 0, total: 0, progress };
            pinned.download_with_progress(file, report).map_err(|error| failed(error.into()))?;
        }
    }
    // The name is given last: what the cache calls `main` is whole.
    cache.model(repo.to_owned()).create_ref(&info.sha).map_err(|error| failed(error.into()))?;
    Ok(snapshot)
}

/// The files to fetch, or none where there are no weights. Only files of the folder itself: a name never leads out of the cache.
fn wanted<'a>(files: &[&'a str]) -> Option<Vec<&'a str>> {
    let has = |name: &str| files.contains(&name);
    let is_weights = |file: &str| {
        if has(WEIGHTS) {
            return file == WEIGHTS;
        }
        file == INDEX || (file.ends_with(".safetensors") && file.starts_with("model-") && !file.contains(['/', '\\']))
    };
    let whole = has("config.json") && (has(WEIGHTS) || has(INDEX));
    whole.then(|| files.iter().copied().filter(|file| FILES.contains(file) || is_weights(file)).collect())
}

/// What the cache calls `main`, if it holds a model.
fn cached(repo: &str, hub: &Hub) -> Option<PathBuf> {
    let folder = model_folder(repo, hub);
    let commit = fs::read_to_string(folder.join("refs/main")).ok()?;
    let snapshot = folder.join("snapshots").join(commit.trim());
    let has = |name: &str| snapshot.join(name).exists();
    (has("config.json") && (has(WEIGHTS) || has(INDEX))).then_some(snapshot)
}

fn model_folder(repo: &str, hub: &Hub) -> PathBuf {
    hub.cache.join(Repo::model(repo.to_owned()).folder_name())
}

fn is_name(repo: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
    };
    repo.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

struct Report<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(&str, u64, u64),
}

impl Progress for Report<'_> {
    // Called anew where a download goes on after it broke off.
    fn init(&mut self, size: usize, _filename: &str) {
        (self.done, self.total) = (0, size as u64);
        (self.progress)(self.file, self.done, self.total);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(self.file, self.done, self.total);
    }

    fn finish(&mut self) {}
}
