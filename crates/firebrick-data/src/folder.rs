//! What a folder of data holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::jsonl::rows;
use crate::layout::Layout;
use crate::{Error, store};

/// How many folders below the first are looked into.
const MAX_DEPTH: usize = 8;

/// The data of a folder, each list in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Comparisons, for [`crate::comparisons::read`].
    pub tranches: Vec<Tranche>,
    /// Questions and answers, for [`crate::threads::read`].
    pub threads: Vec<PathBuf>,
    /// Text, for [`crate::text::read`].
    pub texts: Vec<PathBuf>,
    /// Evaluation tasks, for [`crate::hhh_tasks::read`].
    pub hhh_tasks: Vec<PathBuf>,
    /// Other JSONL of a known layout: conversations, prompts, and comparisons of other names than `train` and `test`.
    pub others: Vec<(PathBuf, Layout)>,
    /// What was left alone.
    pub ignored: Vec<Ignored>,
}

/// Whether a file is a test set by its name: it begins with `test`, `valid`, `eval` or `dev`.
pub fn is_test(path: &Path) -> bool {
    let name = name(path).to_lowercase();
    ["test", "valid", "eval", "dev"].iter().any(|beginning| name.starts_with(beginning))
}

/// A folder of comparisons; at least one of the two files is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tranche {
    /// The folder's name.
    pub name: String,
    /// `train.jsonl` or `train.jsonl.gz`.
    pub train: Option<PathBuf>,
    /// `test.jsonl` or `test.jsonl.gz`.
    pub test: Option<PathBuf>,
}

/// A file or folder that was left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub reason: &'static str,
}

/// The data of a folder and the folders in it, eight deep.
///
/// Recognised are, each plain or as `.gz`:
/// - `train.jsonl` and `test.jsonl` whose first row has `chosen` and `rejected`; their folder's name is the tranche;
/// - JSONL whose first row has `answers`: questions and answers;
/// - JSONL whose first row has `text`, and `.txt` other than a readme, licence, notice or part of a tokenizer: text;
/// - `hhh_alignment/*/task.json`: evaluation tasks;
/// - other JSONL whose first row has a known layout.
///
/// Of a folder named `eval`, nothing but the evaluation tasks is taken. Hidden entries and links to folders are left
/// alone.
///
/// # Errors
/// If a folder cannot be read, a `train` or `test` file is broken in its first row, two folders make one tranche, or
/// there is nothing to train on.
pub fn discover(dir: &Path) -> Result<Sources, Error> {
    let sources = list(dir)?;
    if sources.tranches.is_empty()
        && sources.threads.is_empty()
        && sources.texts.is_empty()
        && sources.others.is_empty()
    {
        return Err(Error::NoData { dir: dir.into(), found: describe(&sources) });
    }
    Ok(sources)
}

/// As [`discover`], of a folder that may hold nothing to learn from.
///
/// # Errors
/// As [`discover`], but for that.
pub fn list(dir: &Path) -> Result<Sources, Error> {
    // The real name of `.` is needed: it may be a tranche's, or `eval`.
    let root = fs::canonicalize(dir).map_err(|source| Error::Read { path: dir.into(), source })?;
    let mut sources = Sources::default();
    let mut tranches = BTreeMap::new();
    walk(&root, 0, is_named(&root, "eval"), &mut |entry| add(entry, &mut sources, &mut tranches))?;
    sources.tranches = distinct(tranches)?;
    Ok(sources)
}

/// The files of a folder and the folders in it that are data by their names, as [`discover`] recognises them and in the same order, and
/// what is left alone.
///
/// # Errors
/// If a folder cannot be read.
pub fn files(dir: &Path) -> Result<(Vec<PathBuf>, Vec<Ignored>), Error> {
    let root = fs::canonicalize(dir).map_err(|source| Error::Read { path: dir.into(), source })?;
    let (mut files, mut ignored) = (Vec::new(), Vec::new());
    walk(&root, 0, is_named(&root, "eval"), &mut |entry| {
        match entry {
            Entry::File { path, evaluation } => match by_name(&path, evaluation) {
                Name::Other(reason) => ignored.push(Ignored { path, reason }),
                Name::HhhTask | Name::Text | Name::Jsonl => files.push(path),
            },
            Entry::Ignored(entry) => ignored.push(entry),
        }
        Ok(())
    })?;
    Ok((files, ignored))
}

/// Whether a file is JSONL by its name, gzip or not.
pub(crate) fn is_jsonl(path: &Path) -> bool {
    let name = name(path);
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

/// What is met in a folder.
enum Entry {
    /// A file, and whether it is in a folder of evaluation data.
    File {
        path: PathBuf,
        evaluation: bool,
    },
    Ignored(Ignored),
}

fn walk(
    dir: &Path,
    depth: usize,
    evaluation: bool,
    visit: &mut dyn FnMut(Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::Read { path: dir.into(), source };
    let entries = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let ignored = |reason| Entry::Ignored(Ignored { path: path.clone(), reason });
        if name(&path).starts_with('.') {
            visit(ignored("hidden"))?;
        } else if path.is_dir() && path.is_symlink() {
            visit(ignored("a link to a folder"))?;
        } else if path.is_dir() && depth == MAX_DEPTH {
            visit(ignored("too deep"))?;
        } else if path.is_dir() {
            walk(&path, depth + 1, evaluation || is_named(&path, "eval"), visit)?;
        } else {
            visit(Entry::File { path, evaluation })?;
        }
    }
    Ok(())
}

/// Puts what is met where it belongs.
fn add(entry: Entry, sources: &mut Sources, tranches: &mut BTreeMap<PathBuf, Tranche>) -> Result<(), Error> {
    let (path, evaluation) = match entry {
        Entry::File { path, evaluation } => (path, evaluation),
        Entry::Ignored(ignored) => {
            sources.ignored.push(ignored);
            return Ok(());
        }
    };
    let dir = path.parent().unwrap_or(&path).to_owned();
    match kind(&path, evaluation)? {
        Kind::Train | Kind::Test if tranches.get(&dir).is_some_and(|tranche| tranche.has(&path)) => {
            sources.ignored.push(Ignored { path, reason: "there both plain and compressed" });
        }
        Kind::Train => tranches.entry(dir).or_default().train = Some(path),
        Kind::Test => tranches.entry(dir).or_default().test = Some(path),
        Kind::Threads => sources.threads.push(path),
        Kind::Text => sources.texts.push(path),
        Kind::HhhTask => sources.hhh_tasks.push(path),
        Kind::Known(layout) => sources.others.push((path, layout)),
        Kind::Other(reason) => sources.ignored.push(Ignored { path, reason }),
    }
    Ok(())
}

/// What a file is by its name.
enum Name {
    HhhTask,
    Text,
    Jsonl,
    Other(&'static str),
}

fn by_name(path: &Path, evaluation: bool) -> Name {
    let name = name(path);
    let tasks = path.parent().and_then(Path::parent);
    if name == "task.json" && tasks.is_some_and(|tasks| is_named(tasks, "hhh_alignment")) {
        return Name::HhhTask;
    }
    if evaluation {
        return Name::Other("evaluation data, never trained on");
    }
    if !path.is_file() {
        return Name::Other("not a file");
    }
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    match stem.strip_suffix(".txt").map(str::to_lowercase).as_deref() {
        Some("readme" | "license" | "licence" | "notice") => Name::Other("about the data"),
        Some("merges" | "vocab") => Name::Other("part of a tokenizer"),
        Some(_) => Name::Text,
        None if is_jsonl(path) => Name::Jsonl,
        None if store::is_table(path) => Name::Other("a table, read where it is named itself"),
        None => Name::Other("no known format"),
    }
}

enum Kind {
    Train,
    Test,
    Threads,
    Text,
    HhhTask,
    Known(Layout),
    Other(&'static str),
}

/// What a file is, by its name and its first row.
fn kind(path: &Path, evaluation: bool) -> Result<Kind, Error> {
    match by_name(path, evaluation) {
        Name::HhhTask => return Ok(Kind::HhhTask),
        Name::Text => return Ok(Kind::Text),
        Name::Other(reason) => return Ok(Kind::Other(reason)),
        Name::Jsonl => {}
    }
    let split = match name(path).trim_end_matches(".gz") {
        "train.jsonl" => Some(Kind::Train),
        "test.jsonl" => Some(Kind::Test),
        _ => None,
    };
    let first = match rows(path, "a JSON object").and_then(|mut rows| rows.next().transpose()) {
        Ok(first) => first,
        Err(error) if split.is_some() => return Err(error),
        Err(_) => return Ok(Kind::Other("its first row is not JSON")),
    };
    let Some(first) = first else { return Ok(Kind::Other("empty")) };
    let compared = first.has("chosen") && first.has("rejected");
    Ok(match split {
        Some(split) if compared => split,
        _ => match Layout::of_row(&first) {
            Some(Layout::Threads) => Kind::Threads,
            Some(Layout::Text) => Kind::Text,
            Some(layout) => Kind::Known(layout),
            None => Kind::Other("no known fields"),
        },
    })
}

impl Tranche {
    /// Whether the file's split is there already.
    fn has(&self, path: &Path) -> bool {
        let there = if name(path).starts_with("train") { &self.train } else { &self.test };
        there.is_some()
    }
}

/// The tranches, named; two folders of one name would mix train with test.
fn distinct(folders: BTreeMap<PathBuf, Tranche>) -> Result<Vec<Tranche>, Error> {
    let mut named: BTreeMap<String, (PathBuf, Tranche)> = BTreeMap::new();
    for (folder, tranche) in folders {
        let name = name(&folder);
        if let Some((first, _)) = named.remove(&name) {
            return Err(Error::DuplicateTranche { name, first, second: folder });
        }
        named.insert(name.clone(), (folder, Tranche { name, ..tranche }));
    }
    Ok(named.into_values().map(|(_, tranche)| tranche).collect())
}

fn describe(sources: &Sources) -> String {
    let count = sources.ignored.len() + sources.hhh_tasks.len();
    let first: Vec<String> =
        sources.ignored.iter().take(3).map(|Ignored { path, reason }| format!("{} ({reason})", name(path))).collect();
    match count {
        0 => "an empty folder".to_owned(),
        _ if first.is_empty() => format!("{count} evaluation tasks only"),
        _ => format!("{count} other entries, such as {}", first.join(", ")),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_named(path: &Path, wanted: &str) -> bool {
    name(path).eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::{gzip, real_data};

    const PAIR: &str = r#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}"#;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| name(path)).collect()
    }

    #[test]
    fn each_kind_is_recognised() {
        let dir = folder(&[
            ("deep/er/helpful/train.jsonl.gz", &gzip(PAIR.as_bytes())),
            ("deep/er/helpful/test.jsonl", PAIR.as_bytes()),
            ("harmless/train.jsonl", PAIR.as_bytes()),
            ("harmless/train.jsonl.gz", &gzip(PAIR.as_bytes())),
            ("more.jsonl", PAIR.as_bytes()),
            ("threads.jsonl", br#"{"title": "", "answers": []}"#),
            ("rows.jsonl", br#"{"text": "x"}"#),
            ("book.txt.gz", &gzip(b"text")),
            ("README.txt", b"about"),
            ("merges.txt", b"a b"),
            ("table.csv", b"1,2"),
            ("table.parquet", b"PAR1"),
            ("empty.jsonl", b""),
            ("broken.jsonl", b"{"),
            (".cache/book.txt", b"text"),
        ]);
        let sources = discover(dir.path()).unwrap();
        let tranches: Vec<_> = sources
            .tranches
            .iter()
            .map(|Tranche { name: tranche, train, test }| {
                (tranche.as_str(), train.as_deref().map(name), test.as_deref().map(name))
            })
            .collect();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            tranches,
            [("harmless", some("train.jsonl"), None), ("helpful", some("train.jsonl.gz"), some("test.jsonl"))]
        );
        assert_eq!(names(&sources.threads), ["threads.jsonl"]);
        assert_eq!(names(&sources.texts), ["book.txt.gz", "rows.jsonl"]);
        let ignored: Vec<(String, &str)> =
            sources.ignored.iter().map(|entry| (name(&entry.path), entry.reason)).collect();
        let expected = [
            (".cache", "hidden"),
            ("README.txt", "about the data"),
            ("broken.jsonl", "its first row is not JSON"),
            ("empty.jsonl", "empty"),
            ("train.jsonl.gz", "there both plain and compressed"),
            ("merges.txt", "part of a tokenizer"),
            ("table.csv", "no known format"),
            ("table.parquet", "a table, read where it is named itself"),
        ];
        assert_eq!(ignored, expected.map(|(name, reason)| (name.to_owned(), reason)));
        let others = sources.others.iter().map(|(path, layout)| (name(path), *layout)).collect::<Vec<_>>();
        assert_eq!(others, [("more.jsonl".to_owned(), Layout::Comparisons)]);
    }

    #[test]
    fn evaluation_data_is_never_training_data() {
        let files: &[(&str, &[u8])] = &[
            ("eval/helpful/train.jsonl", PAIR.as_bytes()),
            ("eval/book.txt", b"text"),
            ("eval/hhh_alignment/honest/task.json", b"{}"),
            ("Eval/book.txt", b"text"),
        ];
        let dir = folder(&[files, &[("train/book.txt", b"text")]].concat());
        let sources = discover(dir.path()).unwrap();
        assert!(sources.tranches.is_empty());
        assert_eq!(sources.texts.len(), 1);
        assert_eq!(sources.hhh_tasks.len(), 1);
        assert_eq!(sources.ignored.iter().filter(|entry| entry.reason.starts_with("evaluation")).count(), 3);
        // Nor when the folder itself is named.
        let message = discover(&dir.path().join("eval")).unwrap_err().to_string();
        assert!(message.contains("3 other entries, such as book.txt (evaluation data, never trained on)"), "{message}");
    }

    #[test]
    fn a_folder_may_itself_be_the_tranche() {
        let dir = folder(&[("helpful/test.jsonl", PAIR.as_bytes())]);
        assert_eq!(discover(&dir.path().join("helpful")).unwrap().tranches[0].name, "helpful");
    }

    #[test]
    fn a_folder_without_data_says_what_is_there() {
        let message = |dir: &Path| discover(dir).unwrap_err().to_string();
        let dir = folder(&[("a.csv", b"1"), ("b.png", b"2")]);
        let found = message(dir.path());
        assert!(found.contains("no data to train on; looked for `*/train.jsonl`"), "{found}");
        assert!(
            found.contains("found 2 other entries, such as a.csv (no known format), b.png (no known format)"),
            "{found}"
        );
        assert!(message(folder(&[]).path()).contains("found an empty folder"));
        assert!(message(Path::new("/no/such/folder")).starts_with("/no/such/folder: cannot be read"));
    }

    #[test]
    fn a_broken_split_is_an_error() {
        let dir = folder(&[("helpful/train.jsonl", b"{\"chosen\"")]);
        let message = discover(dir.path()).unwrap_err().to_string();
        assert!(message.contains("helpful/train.jsonl, line 1, column 9: not a JSON object"), "{message}");
    }

    #[test]
    fn one_tranche_in_two_places_is_an_error() {
        let dir = folder(&[("a/helpful/train.jsonl", PAIR.as_bytes()), ("b/helpful/train.jsonl", PAIR.as_bytes())]);
        let message = discover(dir.path()).unwrap_err().to_string();
        assert!(
            message.starts_with("tranche `helpful` is both in ") && message.ends_with("keep one of the two"),
            "{message}"
        );
    }

    #[test]
    fn the_real_folder_is_recognised() {
        let Some(root) = real_data("") else { return };
        let sources = discover(&root).unwrap();
        let tranches: Vec<&str> = sources.tranches.iter().map(|tranche| tranche.name.as_str()).collect();
        assert_eq!(tranches, ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]);
        assert!(sources.tranches.iter().all(|tranche| tranche.train.is_some() && tranche.test.is_some()));
        assert_eq!(sources.threads.len(), 5);
        assert_eq!(sources.texts.len(), 10);
        assert_eq!(sources.hhh_tasks.len(), 4);
        let others = sources.others.iter().map(|(path, layout)| (name(path), *layout)).collect::<Vec<_>>();
        assert!(others.contains(&("autoj_pairwise.jsonl.gz".to_owned(), Layout::Prompts)), "{others:?}");
        for ignored in ["util_train.csv.gz", "mmlu", "stories260K.bin"] {
            assert!(sources.ignored.iter().any(|entry| entry.path.to_string_lossy().contains(ignored)), "{ignored}");
        }
    }
}
