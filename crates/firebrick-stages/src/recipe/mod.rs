//! Recipes: TOML files in which every number is visible.

mod parts;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub(crate) use parts::positive;
pub use parts::*;

/// A recipe by the name of a built-in one or the path of a file, with settings laid over it.
///
/// # Errors
/// If there is no such recipe, or a key of it or of a setting is unknown, missing or of another type.
pub fn load<R: DeserializeOwned + Serialize>(name: &str, builtin: &[(&str, &str)], settings: &[String]) -> Result<R> {
    let (text, origin) = match builtin.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => ((*text).to_owned(), format!("recipe `{name}`")),
        None if name.ends_with(".toml") || Path::new(name).exists() => {
            (fs::read_to_string(name).with_context(|| format!("cannot read the recipe {name}"))?, name.to_owned())
        }
        None => {
            let names = builtin.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            bail!(
                "no recipe `{name}`{}; built in are {}, or give the path of a .toml file",
                hint(name, &names),
                names.join(", ")
            );
        }
    };
    let mut table: Table = text.parse().map_err(|error| anyhow!("{origin}: {error}"))?;
    let known: Table = builtin[0].1.parse().expect("built-in recipes are tested");
    for setting in settings {
        set(&mut table, &known, setting)?;
    }
    check_keys(&table, &known, "", &origin)?;
    table.try_into().map_err(|error: toml::de::Error| anyhow!("{origin}: {}", error.to_string().trim_end()))
}

/// Lays `path=value` over a table; the value is TOML, or else text.
fn set(table: &mut Table, known: &Table, setting: &str) -> Result<()> {
    let (path, value) = setting
        .split_once('=')
        .ok_or_else(|| anyhow!("--set {setting}: expected KEY=VALUE, for instance ppo.iterations=10"))?;
    let value = format!("value = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let mut keys = path.split('.').collect::<Vec<_>>();
    let last = keys.pop().expect("a split has at least one part");
    let (mut place, mut model) = (table, Some(known));
    for key in keys {
        let names = model.map(|model| model.keys().map(String::as_str).collect::<Vec<_>>()).unwrap_or_default();
        place = match place.get_mut(key) {
            Some(Value::Table(inner)) => inner,
            _ => bail!("--set {setting}: there is no table `{key}`{}", hint(key, &names)),
        };
        model = model.and_then(|model| below(model, key));
    }
    let mut names = place.keys().cloned().collect::<Vec<_>>();
    // What inherits has the keys of what it inherits from, and need not say any.
    names.extend(model.filter(|_| place.is_empty()).into_iter().flat_map(leaves).map(str::to_owned));
    let names = names.iter().map(String::as_str).collect::<Vec<_>>();
    if !names.contains(&last) {
        bail!("--set {setting}: unknown key `{path}`{}", hint(last, &names));
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

/// What may stand below a key. An empty table inherits: the keys beside it may stand there too.
fn below<'a>(table: &'a Table, key: &str) -> Option<&'a Table> {
    let inner = table.get(key).and_then(Value::as_table)?;
    Some(if inner.is_empty() { table } else { inner })
}

/// The keys of a table that are no tables themselves.
fn leaves(table: &Table) -> impl Iterator<Item = &str> {
    table.iter().filter(|(_, value)| !value.is_table()).map(|(key, _)| key.as_str())
}

/// Holds every key against those of a complete recipe, so that a misspelt one is named with its nearest neighbour.
fn check_keys(table: &Table, known: &Table, path: &str, origin: &str) -> Result<()> {
    for (key, value) in table {
        let names = known.keys().map(String::as_str).collect::<Vec<_>>();
        let Some(model) = known.get(key) else {
            bail!("{origin}: unknown key `{path}{key}`{}", hint(key, &names));
        };
        // Below a schedule or a decay any of its forms may stand.
        if let (Value::Table(value), Value::Table(_)) = (value, model)
            && !["schedule", "decay"].contains(&key.as_str())
        {
            let model = below(known, key).expect("it is a table");
            check_keys(value, model, &format!("{path}{key}."), origin)?;
        }
    }
    Ok(())
}

/// `; did you mean …?`, if a name is near.
fn hint(name: &str, names: &[&str]) -> String {
    let near = |known: &&&str| strsim::damerau_levenshtein(name, known);
    match names.iter().min_by_key(near).filter(|known| near(known) <= 1 + name.len() / 3) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Recipe {
        seed: u64,
        ppo: Ppo,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ppo {
        kl_coefficient: f64,
    }

    const BUILTIN: &[(&str, &str)] = &[("world", "seed = 1\n[ppo]\nkl_coefficient = 0.1\n")];

    #[derive(Debug, Serialize, Deserialize)]
    struct Inheriting {
        model: Model,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Model {
        layers: usize,
        critic: Differing,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Differing {
        layers: Option<usize>,
    }

    #[test]
    fn an_empty_table_takes_the_keys_of_what_it_inherits_from() {
        let builtin = &[("world", "[model]\nlayers = 2\n[model.critic]\n")];
        let load = |setting: &str| load::<Inheriting>("world", builtin, &[setting.to_owned()]);
        assert_eq!(load("model.critic.layers=3").unwrap().model.critic.layers, Some(3));
        assert_eq!(load("model.layers=3").unwrap().model.critic.layers, None);
        let message = load("model.critic.layer=3").unwrap_err().to_string();
        assert!(message.contains("unknown key `model.critic.layer`; did you mean `layers`?"), "{message}");
    }

    fn message(name: &str, settings: &[&str]) -> String {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>();
        load::<Recipe>(name, BUILTIN, &settings).unwrap_err().to_string()
    }

    #[test]
    fn settings_are_laid_over_a_recipe() {
        let recipe: Recipe = load("world", BUILTIN, &["ppo.kl_coefficient=0.5".into(), "seed=9".into()]).unwrap();
        assert_eq!((recipe.seed, recipe.ppo.kl_coefficient), (9, 0.5));
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest() {
        assert_eq!(
            message("wrold", &[]),
            "no recipe `wrold`; did you mean `world`?; built in are world, or give the path of a .toml file"
        );
        assert_eq!(
            message("world", &["ppo.kl_coeficient=1"]),
            "--set ppo.kl_coeficient=1: unknown key `ppo.kl_coeficient`; did you mean `kl_coefficient`?"
        );
        assert_eq!(message("world", &["pppo.x=1"]), "--set pppo.x=1: there is no table `pppo`; did you mean `ppo`?");
        assert_eq!(message("world", &["seed"]), "--set seed: expected KEY=VALUE, for instance ppo.iterations=10");
    }

    #[test]
    fn a_value_of_another_type_names_the_key() {
        let message = message("world", &["seed=\"many\""]);
        assert!(message.contains("seed") && message.contains("invalid type"), "{message}");
    }
}
