//! Preference accuracy beside the length-only baseline, and a tournament of policies.

use firebrick_eval::{LengthBaseline, accuracy, head_to_head, win_table};

fn main() {
    // Scores of the chosen and the rejected response: right, wrong, a tie.
    let right = accuracy(&[(2.0, 1.0), (0.0, 3.0), (1.0, 1.0)]);
    assert_eq!(right, [1.0, 0.0, 0.5]);

    // In training the longer response was chosen twice out of three times.
    let baseline = LengthBaseline::fit(&[(9, 4), (7, 5), (2, 6)]);
    assert_eq!(baseline.outcomes(&[(3, 2), (1, 4), (5, 5)]), [1.0, 0.0, 0.5]);

    let (before, after) = ([0.1, 0.4, 0.2], [0.3, 0.4, 0.1]);
    assert_eq!(head_to_head(&after, &before), [1.0, 0.5, 0.0]);
    let table = win_table(&[("before", &before), ("after", &after)]);
    assert_eq!((table.wins(0, 1), table.wins(1, 0)), (1.5, 1.5));
}
