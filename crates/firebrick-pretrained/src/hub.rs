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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::path::Path;

    use super::*;

    /// A port of this machine where nobody listens.
    fn closed() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// A hub on this machine with one model, each of whose files holds its own name; it answers until the test ends.
    fn serve(files: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map(Result::unwrap);
                let head = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>();
                let asked = head[0].split(' ').nth(1).unwrap().to_owned();
                let whole = asked.rsplit('/').next().unwrap().as_bytes().to_vec();
                let (range, body) = if asked == "/api/models/some/model/revision/main" {
                    let siblings = files.iter().map(|file| serde_json::json!({"rfilename": file})).collect::<Vec<_>>();
                    let info = serde_json::json!({"siblings": siblings, "sha": "c0ffee"});
                    (String::new(), info.to_string().into_bytes())
                } else if head.iter().any(|line| line.to_lowercase() == "range: bytes=0-0") {
                    (format!("Content-Range: bytes 0-0/{}\r\n", whole.len()), whole[..1].to_vec())
                } else {
                    (String::new(), whole)
                };
                let etag = asked.replace(|character: char| !character.is_ascii_alphanumeric(), "");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"{etag}\"\r\nX-Repo-Commit: c0ffee\r\n{range}\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[answer.as_bytes(), &body].concat()).unwrap();
            }
        });
        endpoint
    }

    fn hub(endpoint: String, cache: &Path) -> Hub {
        Hub { endpoint, cache: cache.join("hub"), offline: false }
    }

    #[test]
    fn a_model_is_fetched_once_and_then_cached() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            &["README.md", "config.json", "model.safetensors", "tokenizer.json", "../evil.json", "pytorch_model.bin"];
        let online = hub(serve(files), dir.path());
        let mut fetched = Vec::new();
        let snapshot = download("some/model", &online, |file, _, _| fetched.push(file.to_owned())).unwrap();
        fetched.dedup();
        assert_eq!(fetched, ["config.json", "model.safetensors", "tokenizer.json"]);
        for file in &fetched {
            assert_eq!(&fs::read_to_string(snapshot.join(file)).unwrap(), file);
        }
        // A second time nothing is fetched; without the host, and offline, the cache will do.
        let again = download("some/model", &online, |file, _, _| panic!("fetched {file} again")).unwrap();
        assert_eq!(again, snapshot);
        assert_eq!(download("some/model", &hub(closed(), dir.path()), |_, _, _| ()).unwrap(), snapshot);
        let offline = Hub { offline: true, ..hub(closed(), dir.path()) };
        assert_eq!(download("some/model", &offline, |_, _, _| ()).unwrap(), snapshot);
    }

    #[test]
    fn without_host_and_cache_the_way_out_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = closed();
        let message = download("some/model", &hub(endpoint.clone(), dir.path()), |_, _, _| ()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("model some/model cannot be fetched from {endpoint}: ")), "{message}");
        assert!(message.contains("name its folder") && message.contains("HF_HOME"), "{message}");
        assert!(message.to_lowercase().contains("refused") || message.contains("Connection"), "the cause: {message}");
        let offline = Hub { offline: true, ..hub(endpoint, dir.path()) };
        let message = download("some/model", &offline, |_, _, _| ()).unwrap_err().to_string();
        assert!(message.contains("not in the cache") && message.contains("HF_HUB_OFFLINE"), "{message}");
    }

    #[test]
    fn shards_are_wanted_where_there_is_no_whole_file() {
        let shards =
            ["config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors", INDEX, "onnx/model-x.safetensors"];
        assert_eq!(wanted(&shards).unwrap(), shards[..4]);
        assert_eq!(wanted(&["config.json", WEIGHTS, "model-1-of-2.safetensors"]).unwrap(), ["config.json", WEIGHTS]);
        assert_eq!(wanted(&["config.json", "pytorch_model.bin"]), None);
    }

    #[test]
    fn names_from_outside_stay_inside() {
        for (name, good) in [
            ("HuggingFaceTB/SmolLM2-135M-Instruct", true),
            ("openai-community/gpt2", true),
            ("gpt2", false),
            ("../x", false),
            ("a/..", false),
            ("a/b/c", false),
            ("a/", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
    }
}
