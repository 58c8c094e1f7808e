//! Datasets and models of the Hugging Face Hub, fetched once and kept in its cache.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use crate::Error;

/// Files of a model beside its weights, as far as it has them.
const MODEL_FILES: [&str; 8] = [
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

/// Where repositories come from and where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// The host, for instance `https://huggingface.co`.
    pub endpoint: String,
    /// The folder of the cache; other programs of Hugging Face share it.
    pub cache: PathBuf,
    /// Whether to use the cache only.
    pub offline: bool,
}

impl Hub {
    /// The hub that `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` name, as for other programs of Hugging Face.
    pub fn from_env() -> Self {
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
        Self {
            endpoint: std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned()),
            cache: Cache::from_env().path().clone(),
            offline: ["1", "true", "yes", "on"].contains(&offline.to_lowercase().as_str()),
        }
    }
}

/// Which files of a dataset are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Comparisons, `*/{train,test}.jsonl.gz`, for [`crate::folder::discover`].
    Comparisons,
    /// Labelled images, `*/{train,test}*.parquet`, for `firebrick_vision::images::read_folder`.
    Images,
}

/// The folder of what is wanted of a dataset, `owner/name`.
///
/// What is missing in the cache is fetched, and a download that broke off goes on from there; `progress` is told the
/// file, the bytes there so far, and the bytes there will be. Where the hub can't be asked, the cache will do.
///
/// # Errors
/// If the name is none; if the hub fails or may not be asked, and the cache does not have the dataset; or if the
/// dataset has no such file.
pub fn dataset(
    name: &str,
    wanted: Wanted,
    hub: &Hub,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<PathBuf, Error> {
    Repository { name, kind: Kind::Dataset(wanted) }.folder(hub, &mut progress)
}

/// The folder of a model, `owner/name`: its weights as safetensors with `config.json`, and what it has of a tokenizer, a
/// chat template and generation settings.
///
/// Fetched as a [`dataset`] is.
///
/// # Errors
/// If the name is none; if the hub fails or may not be asked, and the cache does not have the model; or if the model has
/// no weights that could be read.
pub fn model(name: &str, hub: &Hub, mut progress: impl FnMut(&str, u64, u64)) -> Result<PathBuf, Error> {
    Repository { name, kind: Kind::Model }.folder(hub, &mut progress)
}

#[derive(Clone, Copy)]
struct Repository<'a> {
    name: &'a str,
    kind: Kind,
}

/// What a repository holds and, of that, what is wanted.
#[derive(Clone, Copy)]
enum Kind {
    Dataset(Wanted),
    Model,
}

impl Repository<'_> {
    fn folder(self, hub: &Hub, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<PathBuf, Error> {
        if !is_name(self.name) {
            return Err(Error::HubName { name: self.name.to_owned(), example: self.kind.example() });
        }
        if hub.offline {
            return self.cached(hub).ok_or_else(|| Error::NotCached {
                kind: self.kind.noun(),
                name: self.name.to_owned(),
                cache: hub.cache.clone(),
            });
        }
        self.fetch(hub, progress).or_else(|error| {
            let snapshot = self.cached(hub).ok_or(error)?;
            tracing::warn!(name = self.name, endpoint = hub.endpoint, "the hub cannot be asked: using the cache");
            Ok(snapshot)
        })
    }

    fn fetch(self, hub: &Hub, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<PathBuf, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Hub {
            kind: self.kind.noun(),
            name: self.name.to_owned(),
            endpoint: hub.endpoint.clone(),
            source,
        };
        let (name, kind) = (self.name.to_owned(), self.kind.repo_type());
        let cache = Cache::new(hub.cache.clone());
        let api = ApiBuilder::from_cache(cache.clone()).with_endpoint(hub.endpoint.clone()).with_progress(false);
        let api = api.build().map_err(|error| failed(error.into()))?;
        let info = api.repo(Repo::new(name.clone(), kind)).info().map_err(|error| failed(error.into()))?;
        let files = self.kind.wanted(info.siblings.iter().map(|file| file.rfilename.as_str()).collect());
        if files.is_empty() {
            return Err(Error::NotInRepository {
                kind: self.kind.noun(),
                name,
                expected: self.kind.expected(),
                example: self.kind.example(),
            });
        }
        // One revision for all files, even if the repository changes meanwhile.
        let pinned = api.repo(Repo::with_revision(name.clone(), kind, info.sha.clone()));
        let snapshot = self.cache_folder(hub).join("snapshots").join(&info.sha);
        for file in files {
            if !snapshot.join(file).exists() {
                let report = Report { file, done: 0, total: 0, progress };
                pinned.download_with_progress(file, report).map_err(|error| failed(error.into()))?;
            }
        }
        // The name is given last: what the cache calls `main` is whole.
        cache.repo(Repo::new(name, kind)).create_ref(&info.sha).map_err(|error| failed(error.into()))?;
        Ok(snapshot)
    }

    /// What the cache calls `main`, if it holds what is wanted.
    fn cached(self, hub: &Hub) -> Option<PathBuf> {
        let folder = self.cache_folder(hub);
        let commit = fs::read_to_string(folder.join("refs/main")).ok()?;
        let snapshot = folder.join("snapshots").join(commit.trim());
        let mut files = Vec::new();
        for entry in fs::read_dir(&snapshot).ok()?.flatten() {
            files.push(entry.path());
            files.extend(fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|file| file.path()));
        }
        let names = files.iter().filter_map(|file| file.strip_prefix(&snapshot).ok().and_then(Path::to_str)).collect();
        (!self.kind.wanted(names).is_empty()).then_some(snapshot)
    }

    fn cache_folder(self, hub: &Hub) -> PathBuf {
        hub.cache.join(Repo::new(self.name.to_owned(), self.kind.repo_type()).folder_name())
    }
}

impl Kind {
    fn repo_type(self) -> RepoType {
        match self {
            Self::Dataset(_) => RepoType::Dataset,
            Self::Model => RepoType::Model,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset",
            Self::Model => "model",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Dataset(Wanted::Comparisons) => "`*/train.jsonl.gz` or `*/test.jsonl.gz`",
            Self::Dataset(Wanted::Images) => "`*/train*.parquet` or `*/test*.parquet`",
            Self::Model => "`config.json` with `model.safetensors` or its shards",
        }
    }

    /// A repository that has all that is expected.
    fn example(self) -> &'static str {
        match self {
            Self::Dataset(Wanted::Comparisons) => "Anthropic/hh-rlhf",
            Self::Dataset(Wanted::Images) => "ylecun/mnist",
            Self::Model => "HuggingFaceTB/SmolLM2-135M-Instruct",
        }
    }

    /// The files to fetch; none if what cannot be done without is not among them.
    fn wanted(self, files: Vec<&str>) -> Vec<&str> {
        match self {
            Self::Dataset(wanted) => files.into_iter().filter(|file| wanted.is(file)).collect(),
            Self::Model => {
                let has = |name: &str| files.contains(&name);
                let is_weights: fn(&str) -> bool = match (has("config.json"), has(WEIGHTS), has(INDEX)) {
                    (true, true, _) => |file: &str| file == WEIGHTS,
                    (true, false, true) => is_shard,
                    _ => return Vec::new(),
                };
                files.into_iter().filter(|file| MODEL_FILES.contains(file) || is_weights(file)).collect()
            }
        }
    }
}

/// Whether a file is one of several that hold the weights, or their index. A name from outside never leads out of the
/// cache.
fn is_shard(file: &str) -> bool {
    file == INDEX || (file.starts_with("model-") && file.ends_with(".safetensors") && !file.contains(['/', '\\']))
}

impl Wanted {
    /// Whether a file of the hub is one to fetch. A name from outside never leads out of the cache.
    fn is(self, file: &str) -> bool {
        let Some((folder, name)) = file.split_once('/') else { return false };
        let inside = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(['/', '\\']);
        inside(folder)
            && inside(name)
            && match self {
                Self::Comparisons => ["train.jsonl.gz", "test.jsonl.gz"].contains(&name),
                Self::Images => name.ends_with(".parquet") && (name.starts_with("train") || name.starts_with("test")),
            }
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
    };
    name.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
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

    use super::*;
    use crate::file::tests::gzip;

    const PAIR: &str = r#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}"#;

    /// A port of this machine where nobody listens.
    fn closed() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// A hub on this machine whose repositories all have these files; it answers until the test ends.
    fn serve(files: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map(Result::unwrap);
                let head = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>();
                let asked = head[0].split(' ').nth(1).unwrap();
                let whole = if asked.starts_with("/api/") {
                    let siblings = files.iter().map(|file| serde_json::json!({"rfilename": file})).collect::<Vec<_>>();
                    serde_json::json!({"siblings": siblings, "sha": "c0ffee"}).to_string().into_bytes()
                } else {
                    content(asked)
                };
                let range =
                    head.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                let (status, range, body) = match range.as_deref().and_then(|range| range.split_once('-')) {
                    None => ("200 OK", String::new(), &whole[..]),
                    Some((first, last)) => {
                        let first = first.parse::<usize>().unwrap();
                        let last = last.parse::<usize>().unwrap_or(whole.len() - 1);
                        let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", whole.len());
                        ("206 Partial Content", range, &whole[first..=last])
                    }
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"{}\"\r\nX-Repo-Commit: c0ffee\r\n{range}\
                     Content-Length: {}\r\n\r\n",
                    etag(asked),
                    body.len()
                );
                stream.write_all(&[answer.as_bytes(), body].concat()).unwrap();
            }
        });
        endpoint
    }

    /// What the file of a place holds: a pair where it is one of comparisons, else its own name.
    fn content(place: &str) -> Vec<u8> {
        let name = place.rsplit('/').next().unwrap().as_bytes();
        if place.ends_with(".jsonl.gz") { gzip(PAIR.as_bytes()) } else { name.to_vec() }
    }

    fn etag(place: &str) -> String {
        blake3::hash(place.as_bytes()).to_string()
    }

    fn hub(endpoint: String, cache: &Path) -> Hub {
        Hub { endpoint, cache: cache.join("hub"), offline: false }
    }

    fn comparisons(hub: &Hub) -> Result<PathBuf, Error> {
        dataset("some/set", Wanted::Comparisons, hub, |_, _, _| ())
    }

    #[test]
    fn a_dataset_is_fetched_once_and_then_cached() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            &["README.md", "base/train.jsonl.gz", "base/test.jsonl.gz", "red/team.jsonl.gz", "../train.jsonl.gz"];
        let online = hub(serve(files), dir.path());
        let mut reports = Vec::new();
        let snapshot = dataset("some/set", Wanted::Comparisons, &online, |file, done, total| {
            reports.push((file.to_owned(), done, total))
        })
        .unwrap();
        let size = gzip(PAIR.as_bytes()).len() as u64;
        for file in ["base/train.jsonl.gz", "base/test.jsonl.gz"] {
            let last = reports.iter().rfind(|report| report.0 == file).unwrap();
            assert_eq!((last.1, last.2), (size, size));
        }
        let sources = crate::folder::discover(&snapshot).unwrap();
        assert_eq!(sources.tranches.len(), 1);
        let train = sources.tranches[0].train.as_deref().unwrap();
        assert_eq!(crate::comparisons::read(train, "base").unwrap().0.len(), 1);
        // A second time nothing is fetched; without the host, and offline, the cache will do.
        let again =
            dataset("some/set", Wanted::Comparisons, &online, |file, _, _| panic!("fetched {file} again")).unwrap();
        assert_eq!(again, snapshot);
        assert_eq!(comparisons(&hub(closed(), dir.path())).unwrap(), snapshot);
        let offline = Hub { offline: true, ..hub(closed(), dir.path()) };
        assert_eq!(comparisons(&offline).unwrap(), snapshot);
    }

    #[test]
    fn a_model_is_fetched_once_and_then_cached() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            &["README.md", "config.json", "model.safetensors", "tokenizer.json", "../evil.json", "pytorch_model.bin"];
        let online = hub(serve(files), dir.path());
        let mut fetched = Vec::new();
        let snapshot = model("some/model", &online, |file, _, _| fetched.push(file.to_owned())).unwrap();
        fetched.dedup();
        assert_eq!(fetched, ["config.json", "model.safetensors", "tokenizer.json"]);
        for file in &fetched {
            assert_eq!(&fs::read_to_string(snapshot.join(file)).unwrap(), file);
        }
        let again = model("some/model", &online, |file, _, _| panic!("fetched {file} again")).unwrap();
        assert_eq!(again, snapshot);
        assert_eq!(model("some/model", &hub(closed(), dir.path()), |_, _, _| ()).unwrap(), snapshot);
        let offline = Hub { offline: true, ..hub(closed(), dir.path()) };
        assert_eq!(model("some/model", &offline, |_, _, _| ()).unwrap(), snapshot);
        // A dataset of the same name is another repository.
        assert!(dataset("some/model", Wanted::Images, &offline, |_, _, _| ()).is_err());
    }

    #[test]
    fn a_download_that_broke_off_goes_on_from_there() {
        let dir = tempfile::tempdir().unwrap();
        let online = hub(serve(&["config.json", "model.safetensors"]), dir.path());
        // What is there already is not the hub's, so that it can be told from what is fetched.
        let blobs = online.cache.join("models--some--model/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let begun = etag("/some/model/resolve/c0ffee/model.safetensors");
        fs::write(blobs.join(format!("{begun}.part")), "MODEL").unwrap();
        let mut reports = Vec::new();
        let snapshot = model("some/model", &online, |file, done, total| {
            if file == WEIGHTS {
                reports.push((done, total));
            }
        })
        .unwrap();
        assert_eq!(fs::read_to_string(snapshot.join(WEIGHTS)).unwrap(), "MODEL.safetensors");
        assert!(reports.contains(&(5, 17)) && reports.last() == Some(&(17, 17)), "{reports:?}");
    }

    #[test]
    fn without_host_and_cache_the_way_out_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let online = hub(closed(), dir.path());
        let offline = Hub { offline: true, ..online.clone() };
        let model = |hub: &Hub| model("some/model", hub, |_, _, _| ()).unwrap_err().to_string();
        let dataset = |hub: &Hub| comparisons(hub).unwrap_err().to_string();
        for (repository, message) in [("dataset some/set", dataset(&online)), ("model some/model", model(&online))] {
            let expected = format!("{repository} cannot be fetched from {}: ", online.endpoint);
            assert!(message.starts_with(&expected), "{message}");
            assert!(message.to_lowercase().contains("refused"), "the cause: {message}");
            assert!(message.contains("name its folder") && message.contains("HF_HOME"), "{message}");
        }
        for (repository, message) in [("dataset some/set", dataset(&offline)), ("model some/model", model(&offline))] {
            assert!(message.starts_with(&format!("{repository} is not in the cache ")), "{message}");
            assert!(message.contains("HF_HUB_OFFLINE") && message.contains("name a folder"), "{message}");
        }
    }

    #[test]
    fn a_repository_without_what_is_wanted_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let with = |files| hub(serve(files), dir.path());
        let message = comparisons(&with(&["data/x.parquet"])).unwrap_err().to_string();
        let expected = "dataset some/set has no `*/train.jsonl.gz` or `*/test.jsonl.gz`; ";
        assert!(message.starts_with(expected), "{message}");
        let none = with(&["base/train.jsonl.gz"]);
        let message = dataset("some/set", Wanted::Images, &none, |_, _, _| ()).unwrap_err().to_string();
        assert!(message.starts_with("dataset some/set has no `*/train*.parquet` or `*/test*.parquet`; "), "{message}");
        let pickled = with(&["config.json", "pytorch_model.bin"]);
        let message = model("some/model", &pickled, |_, _, _| ()).unwrap_err().to_string();
        let expected = "model some/model has no `config.json` with `model.safetensors` or its shards; ";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn images_are_fetched_where_images_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let online = hub(serve(&["base/train.jsonl.gz", "mnist/train-0.parquet", "mnist/test-0.parquet"]), dir.path());
        let snapshot = dataset("some/set", Wanted::Images, &online, |_, _, _| ()).unwrap();
        assert!(snapshot.join("mnist/train-0.parquet").exists() && !snapshot.join("base").exists());
        let offline = Hub { offline: true, ..hub(closed(), dir.path()) };
        assert_eq!(dataset("some/set", Wanted::Images, &offline, |_, _, _| ()).unwrap(), snapshot);
        // What is there is not what is wanted.
        assert!(comparisons(&offline).is_err());
    }

    #[test]
    fn shards_are_wanted_where_there_is_no_whole_file() {
        let shards =
            ["config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors", INDEX, "onnx/model-x.safetensors"];
        let wanted = |files: &[&'static str]| Kind::Model.wanted(files.to_vec());
        assert_eq!(wanted(&shards), shards[..4]);
        assert_eq!(wanted(&["config.json", WEIGHTS, "model-1-of-2.safetensors"]), ["config.json", WEIGHTS]);
        assert_eq!(wanted(&["config.json", "pytorch_model.bin"]), [""; 0]);
        assert_eq!(wanted(&["tokenizer.json", WEIGHTS]), [""; 0]);
    }

    #[test]
    fn names_from_outside_stay_inside() {
        for (file, wanted) in [
            ("helpful-base/train.jsonl.gz", true),
            ("helpful-base/test.jsonl.gz", true),
            ("train.jsonl.gz", false),
            ("../train.jsonl.gz", false),
            ("/train.jsonl.gz", false),
            ("a/../../train.jsonl.gz", false),
            ("red-team-attempts/red_team_attempts.jsonl.gz", false),
        ] {
            assert_eq!(Wanted::Comparisons.is(file), wanted, "{file}");
        }
        for (file, wanted) in [
            ("mnist/train-00000-of-00001.parquet", true),
            ("data/test-00000-of-00001.parquet", true),
            ("mnist/validation.parquet", false),
            ("../train.parquet", false),
            ("a/../train.parquet", false),
            ("a/b/train.parquet", false),
            ("train.parquet", false),
        ] {
            assert_eq!(Wanted::Images.is(file), wanted, "{file}");
        }
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
        let dir = tempfile::tempdir().unwrap();
        let message = model("gpt2", &hub(closed(), dir.path()), |_, _, _| ()).unwrap_err().to_string();
        assert_eq!(message, "hub:gpt2: expected hub:OWNER/NAME, for instance hub:HuggingFaceTB/SmolLM2-135M-Instruct");
    }
}
