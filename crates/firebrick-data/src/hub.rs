//! Datasets of the Hugging Face Hub, fetched once and kept in its cache.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use crate::Error;

/// Where datasets come from and where they are kept.
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
    /// Labelled images, `*/{train,test}*.parquet`, for [`crate::images::read_folder`].
    Images,
}

/// The folder of what is wanted of a dataset.
///
/// What is missing in the cache is fetched; `progress` is told the file, the bytes there so far, and the bytes there
/// will be. Where the hub can't be asked, the cache will do.
///
/// # Errors
/// If the hub fails or may not be asked, and the cache does not have the dataset; or if the dataset has no such file.
pub fn download(
    repo: &str,
    wanted: Wanted,
    hub: &Hub,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<PathBuf, Error> {
    if hub.offline {
        return cached(repo, wanted, hub)
            .ok_or_else(|| Error::NotCached { repo: repo.into(), cache: hub.cache.clone() });
    }
    fetch(repo, wanted, hub, &mut progress).or_else(|error| {
        let snapshot = cached(repo, wanted, hub).ok_or(error)?;
        tracing::warn!(repo, endpoint = hub.endpoint, "the hub cannot be asked: using the cached dataset");
        Ok(snapshot)
    })
}

fn fetch(repo: &str, wanted: Wanted, hub: &Hub, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<PathBuf, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Hub {
        repo: repo.into(),
        endpoint: hub.endpoint.clone(),
        source,
    };
    let cache = Cache::new(hub.cache.clone());
    let api = ApiBuilder::from_cache(cache.clone()).with_endpoint(hub.endpoint.clone()).with_progress(false).build();
    let api = api.map_err(|error| failed(error.into()))?;
    let info = api.dataset(repo.into()).info().map_err(|error| failed(error.into()))?;
    let files: Vec<&str> =
        info.siblings.iter().map(|file| file.rfilename.as_str()).filter(|file| wanted.is(file)).collect();
    if files.is_empty() {
        return Err(match wanted {
            Wanted::Comparisons => Error::NoComparisons { repo: repo.into() },
            Wanted::Images => Error::NoHubImages { repo: repo.into() },
        });
    }
    // One revision for all files, even if the dataset changes meanwhile.
    let pinned = api.repo(Repo::with_revision(repo.into(), RepoType::Dataset, info.sha.clone()));
    let snapshot = dataset_folder(repo, hub).join("snapshots").join(&info.sha);
    for file in files {
        if !snapshot.join(file).exists() {
            let report = Report { file, done: 0, total: 0, progress };
            pinned.download_with_progress(file, report).map_err(|error| failed(error.into()))?;
        }
    }
    // The name is given last: what the cache calls `main` is whole.
    cache.dataset(repo.into()).create_ref(&info.sha).map_err(|error| failed(error.into()))?;
    Ok(snapshot)
}

/// What the cache calls `main`, if it holds what is wanted.
fn cached(repo: &str, wanted: Wanted, hub: &Hub) -> Option<PathBuf> {
    let folder = dataset_folder(repo, hub);
    let commit = fs::read_to_string(folder.join("refs/main")).ok()?;
    let snapshot = folder.join("snapshots").join(commit.trim());
    let holds = |folder: &fs::DirEntry| {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        files.into_iter().any(|file| {
            let path = file.path();
            path.strip_prefix(&snapshot).ok().and_then(Path::to_str).is_some_and(|file| wanted.is(file))
        })
    };
    let any = fs::read_dir(&snapshot).ok()?.flatten().any(|folder| holds(&folder));
    any.then_some(snapshot)
}

fn dataset_folder(repo: &str, hub: &Hub) -> PathBuf {
    hub.cache.join(Repo::dataset(repo.into()).folder_name())
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

    /// A hub on this machine with one dataset; it answers until the test ends.
    fn serve(files: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head: Vec<String> =
                    BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
                let whole = gzip(PAIR.as_bytes());
                let (range, body) = if head[0].starts_with("GET /api/datasets/some/set/revision/main ") {
                    let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({"rfilename": file})).collect();
                    let info = serde_json::json!({"siblings": siblings, "sha": "c0ffee"});
                    (String::new(), info.to_string().into_bytes())
                } else if head.iter().any(|line| line.to_lowercase() == "range: bytes=0-0") {
                    (format!("Content-Range: bytes 0-0/{}\r\n", whole.len()), whole[..1].to_vec())
                } else {
                    (String::new(), whole)
                };
                let etag = blake3::hash(head[0].as_bytes());
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
    fn a_dataset_is_fetched_once_and_then_cached() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            &["README.md", "base/train.jsonl.gz", "base/test.jsonl.gz", "red/team.jsonl.gz", "../train.jsonl.gz"];
        let online = hub(serve(files), dir.path());
        let mut reports = Vec::new();
        let snapshot = download("some/set", Wanted::Comparisons, &online, |file, done, total| {
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
        assert_eq!(crate::hh::read(train, "base").unwrap().0.len(), 1);
        // A second time nothing is fetched; without the host, and offline, the cache will do.
        let again =
            download("some/set", Wanted::Comparisons, &online, |file, _, _| panic!("fetched {file} again")).unwrap();
        assert_eq!(again, snapshot);
        assert_eq!(
            download("some/set", Wanted::Comparisons, &hub(closed(), dir.path()), |_, _, _| ()).unwrap(),
            snapshot
        );
        let offline = Hub { offline: true, ..hub(closed(), dir.path()) };
        assert_eq!(download("some/set", Wanted::Comparisons, &offline, |_, _, _| ()).unwrap(), snapshot);
    }

    #[test]
    fn without_host_and_cache_the_way_out_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = closed();
        let message = download("some/set", Wanted::Comparisons, &hub(endpoint.clone(), dir.path()), |_, _, _| ())
            .unwrap_err()
            .to_string();
        assert!(message.starts_with(&format!("dataset some/set cannot be fetched from {endpoint}")), "{message}");
        assert!(message.contains("--data DIR") && message.contains("HF_HOME"), "{message}");
        let offline = Hub { offline: true, ..hub(endpoint, dir.path()) };
        let message = download("some/set", Wanted::Comparisons, &offline, |_, _, _| ()).unwrap_err().to_string();
        assert!(message.contains("not in the cache") && message.contains("HF_HUB_OFFLINE"), "{message}");
    }

    #[test]
    fn a_dataset_without_comparisons_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let message =
            download("some/set", Wanted::Comparisons, &hub(serve(&["data/x.parquet"]), dir.path()), |_, _, _| ())
                .unwrap_err();
        let expected = "dataset some/set has no `*/train.jsonl.gz` or `*/test.jsonl.gz`; ";
        assert!(message.to_string().starts_with(expected), "{message}");
    }

    #[test]
    fn images_are_fetched_where_images_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let online = hub(serve(&["base/train.jsonl.gz", "mnist/train-0.parquet", "mnist/test-0.parquet"]), dir.path());
        let snapshot = download("some/set", Wanted::Images, &online, |_, _, _| ()).unwrap();
        assert!(snapshot.join("mnist/train-0.parquet").exists() && !snapshot.join("base").exists());
        let offline = Hub { offline: true, ..hub(closed(), dir.path()) };
        assert_eq!(download("some/set", Wanted::Images, &offline, |_, _, _| ()).unwrap(), snapshot);
        // What is there is not what is wanted.
        assert!(download("some/set", Wanted::Comparisons, &offline, |_, _, _| ()).is_err());
        let none = hub(serve(&["base/train.jsonl.gz"]), &dir.path().join("other"));
        let message = download("some/set", Wanted::Images, &none, |_, _, _| ()).unwrap_err().to_string();
        assert!(message.starts_with("dataset some/set has no `*/train*.parquet` or `*/test*.parquet`; "), "{message}");
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
    }
}
