//! Gemini's log probabilities in OpenAI's shape.

use super::wire::{LogprobsResult, TokenLogprob};
use crate::json::push_string;

/// The `logprobs` object of a choice.
pub fn openai(said: &LogprobsResult<'_>) -> String {
    let mut json = br#"{"content":["#.to_vec();
    for (position, chosen) in said.chosen_candidates.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        push_token(&mut json, chosen);
        json.extend_from_slice(br#","top_logprobs":["#);
        let top = said.top_candidates.get(position);
        for (place, other) in top.iter().flat_map(|top| &top.candidates).enumerate() {
            if place > 0 {
                json.push(b',');
            }
            push_token(&mut json, other);
            json.push(b'}');
        }
        json.extend_from_slice(b"]}");
    }
    json.extend_from_slice(br#"],"refusal":null}"#);
    String::from_utf8(json).expect("built from strings")
}

/// One token, its object left open.
fn push_token(json: &mut Vec<u8>, said: &TokenLogprob<'_>) {
    json.extend_from_slice(br#"{"token":"#);
    push_string(json, &said.token);
    json.extend_from_slice(br#","logprob":"#);
    // A sure token has probability 1, and the vendor leaves zeros out.
    let logprob = said.log_probability.map_or("0", |number| number.get());
    let is_number = logprob.parse().is_ok_and(f64::is_finite);
    json.extend_from_slice(if is_number { logprob } else { "0" }.as_bytes());
    json.extend_from_slice(br#","bytes":"#);
    serde_json::to_writer(&mut *json, said.token.as_bytes())
        .expect("writing to memory does not fail");
}

#[cfg(test)]
#[test]
fn only_numbers_stand_where_numbers_are_expected() {
    for (said, told) in [
        ("-0.50", "-0.50"),
        ("[[-1]]", "0"),
        ("\"-1\"", "0"),
        ("1e999", "0"),
        ("null", "0"),
    ] {
        let json = format!(r#"{{"chosenCandidates":[{{"token":"a","logProbability":{said}}}]}}"#);
        let openai = openai(&serde_json::from_str(&json).unwrap());
        let expected = format!(r#"{{"token":"a","logprob":{told},"bytes":[97],"#);
        assert!(openai.contains(&expected), "{openai}");
    }
}
