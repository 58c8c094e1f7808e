//! Rewards of one's own, who computes, and what is refused.

use firebrick_rl::{Group, RewardError};
use firebrick_tensor::Workers;

use super::*;

#[test]
fn how_many_threads_compute_changes_no_bit() {
    let config = PpoConfig { iterations: 2, micro_batch_size: 3, ..config() };
    let of = |threads| {
        let mut record = Record::default();
        let run = Run::new(seed()).workers(Workers::new(threads)).observer(&mut record);
        let (policy, _) = train(policy(), &preference_model(), &prompts(), &config, run).unwrap();
        (Parameters::of(&policy).to_bytes(), record.steps)
    };
    let one = of(1);
    assert!(of(2) == one && of(5) == one);
}

/// A closure over whole groups: what a response is worth depends on the others of its prompt.
#[test]
fn a_closure_is_a_reward_that_sees_whole_groups() {
    let config = PpoConfig { iterations: 30, kl_coefficient: 0.0, ..config() };
    let shortest = |groups: &[Group<'_>]| -> Result<Vec<f64>, RewardError> {
        let of = |group: &Group<'_>| {
            assert_eq!(group.responses.len(), 4);
            assert!(prompts().contains(&group.prompt.tokens) && group.prompt.id.starts_with('p'));
            let shortest = group.responses.iter().map(|one| one.text.chars().count()).min().unwrap_or(0);
            let is_shortest = |text: &str| text.chars().count() == shortest;
            group.responses.iter().map(|one| f64::from(u8::from(is_shortest(one.text)))).collect::<Vec<_>>()
        };
        Ok(groups.iter().flat_map(of).collect())
    };
    let mut record = Record::default();
    let run = Run::new(seed()).observer(&mut record);
    ppo::train(policy(), critic(), &shortest, &named(&prompts()), &format(), &config, run).unwrap();
    let (first, last) = record.first_and_last("response_length");
    assert!(last < first - 1.0, "responses went from {first} to {last} tokens");
}

#[test]
fn a_reward_that_fails_or_gives_nonsense_is_named() {
    let message = |reward: fn(&[Group<'_>]) -> Result<Vec<f64>, RewardError>| {
        let run = Run::new(seed());
        let result = ppo::train(policy(), critic(), &reward, &named(&prompts()), &format(), &config(), run);
        result.map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(message(|_| Err("no judge today".into())), "the reward failed: no judge today");
    assert!(message(|_| Ok(vec![1.0; 3])).starts_with("the reward gave 3 scores of 16 responses"));
    let first = message(|groups| Ok(groups.iter().flat_map(|group| vec![f64::NAN; group.responses.len()]).collect()));
    assert!(first.starts_with("the reward of a response to prompt `p") && first.contains("is NaN"), "{first}");
}

#[test]
fn a_run_without_prompts_says_so() {
    let result = train(policy(), &preference_model(), &[], &config(), Run::new(seed()));
    assert!(matches!(result.map(|_| ()), Err(Error::Train(TrainError::Empty { .. }))));
}
