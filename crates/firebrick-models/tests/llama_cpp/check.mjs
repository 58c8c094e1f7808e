// Holds a GGUF file that Firebrick wrote against llama.cpp: tokens of prompts, greedy continuations and, where Firebrick gave them, the
// log-probabilities of the tokens of a text.
//
//     npm install node-llama-cpp@3.22.1
//     firebrick model convert SRC model.gguf
//     node check.mjs model.gguf prompts.json
//
// prompts.json is a list of { text, ids, greedy, log_probs }: a text, its ids and those that `firebrick generate --json --temperature 0`
// continues it with, and optionally the probabilities of `firebrick model logprobs --ids`.

import { readFileSync } from "node:fs";
import { getLlama } from "node-llama-cpp";

const [file, prompts] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "warn" });
const model = await llama.loadModel({ modelPath: file });
let failed = false;
for (const { text, ids, greedy, log_probs } of JSON.parse(readFileSync(prompts))) {
    const begins = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : [];
    const found = [...begins, ...model.tokenize(text, true)];
    if (JSON.stringify(found) !== JSON.stringify(ids)) {
        failed = true;
        console.log(`${JSON.stringify(text)}: tokens ${found} for ${ids}`);
    }
    const context = await model.createContext({ contextSize: 256, sequences: 1, threads: 1, flashAttention: false });
    const sequence = context.getSequence();
    const continued = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        continued.push(token);
        if (continued.length >= greedy.length) break;
    }
    const same = greedy.findIndex((token, index) => token !== continued[index]);
    const equal = same < 0 ? greedy.length : same;
    failed ||= equal < greedy.length;
    console.log(`${JSON.stringify(text)}: ${equal} of ${greedy.length} greedy tokens are equal`);
    if (log_probs) {
        await sequence.clearHistory();
        const input = ids.map((token, index) =>
            index + 1 < ids.length ? [token, { generateNext: { probabilities: true, token: false } }] : token);
        const output = await sequence.controlledEvaluate(input);
        let worst = 0;
        for (let index = 1; index < ids.length; index++) {
            const probability = output[index - 1].next.probabilities.get(ids[index]);
            worst = Math.max(worst, Math.abs(Math.log(probability) - log_probs[index]));
        }
        failed ||= !(worst < 1e-2);
        console.log(`    log-probabilities differ by at most ${worst.toExponential(2)}`);
    }
    await context.dispose();
}
process.exit(failed ? 1 : 0);
