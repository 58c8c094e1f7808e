//! Rewards of one's own, who computes, and what is refused.

use firebrick_rl::{Group, RenderedRewardModel, Response, Reward, RewardError};
use firebrick_tensor::Workers;
use firebrick_text::Renderer;
use firebrick_types::{Dialogue, Message};

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

/// The preference model has a tokenizer of its own: it reads the text, and no token of the policy's comes back from it.
#[test]
fn t11_a_reward_model_of_another_tokenizer_renders_text_of_its_own() {
    let renderer = Renderer::dialogues(Tokenizer::train(["\n\nHuman: dd\n\nAssistant: a cab"], 280).unwrap());
    let shape = DecoderConfig { vocab: renderer.tokenizer().vocab_size(), context: 64, ..shape() };
    let scorer = shape.init_scored(Seed::new(3), &cpu());
    let reward =
        RenderedRewardModel { scorer: &scorer, renderer: &renderer, micro_batch_size: 2, workers: Workers::new(1) };
    let asked = Dialogue::new(vec![Message::human("dd")]);
    let prompt = Prompt { dialogue: Some(asked.clone()), ..Prompt::new("p0", vec![3, 3]) };
    let response = |tokens, text| Response { tokens, text, finish: Finish::Stop };
    let responses = vec![response(&[2, 0, 1][..], "cab"), response(&[0, EOC][..], "a")];
    let found = reward.score(&[Group { prompt: &prompt, responses: responses.clone() }]).unwrap();
    let text =
        |text| [renderer.prompt(&asked).unwrap(), renderer.response(text).unwrap(), vec![renderer.end()]].concat();
    let wanted = [text("cab"), text("a")]
        .map(|tokens| f64::from(scorer.scores(&TokenBatch::of(&[tokens], &cpu())).into_scalar::<f32>()));
    assert_eq!(found, wanted);
    let bare = Prompt::new("p1", vec![3]);
    let error = reward.score(&[Group { prompt: &bare, responses }]).unwrap_err().to_string();
    assert_eq!(error, "prompt `p1` comes without its conversation");
}

#[test]
fn a_run_without_prompts_says_so() {
    let result = train(policy(), &preference_model(), &[], &config(), Run::new(seed()));
    assert!(matches!(result.map(|_| ()), Err(Error::Train(TrainError::Empty { .. }))));
}
