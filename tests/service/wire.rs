//! JSON-RPC 2.0 byte for byte: what is sent, what comes back.

use commissaire::{Context, RpcError, Service};
use serde_json::{Value, json};

use super::{Act, Add, Named, Raw, Sum, memory};

async fn served() -> (commissaire::Running, Raw) {
    let bus = memory().await;
    let running = Service::new("calc", ())
        .method(Add, async |_, sum: Sum, _: Context| Ok(sum.x + sum.y))
        .method(Act, async |_, named: Named, _: Context| match named.name.as_str() {
            "panic" => panic!("the canary in the panic's text"),
            "fail" => Err(RpcError::new(RpcError::CONFLICT, "taken").with_data(json!({"by": "another"}))),
            other => Ok(other.to_owned()),
        })
        .start(bus.clone())
        .await
        .unwrap();
    let raw = Raw::new(&bus).await;
    (running, raw)
}

fn code(answer: &str) -> i64 {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    assert!(answer.get("id").is_some() && answer.get("result").is_none(), "{answer}");
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no code in {answer}"))
}

#[tokio::test]
async fn well_formed_requests_get_their_results() {
    let (_running, mut raw) = served().await;
    for (body, answer) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":2,"y":3}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":5}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[2,3]}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":5}"#,
        ),
        (
            r#" {"params":[2,3],"method":"add","id":"a","jsonrpc":"2.0"} "#,
            r#"{"jsonrpc":"2.0","id":"a","result":5}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"add","params":[0,0]}"#,
            r#"{"jsonrpc":"2.0","id":null,"result":0}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":{"a":[1]},"method":"add","params":[0,0]}"#,
            r#"{"jsonrpc":"2.0","id":{"a":[1]},"result":0}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1.5,"method":"add","params":[0,0],"extra":1}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"result":0}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"\u00e9","method":"\u0061dd","params":[-1,1]}"#,
            r#"{"jsonrpc":"2.0","id":"\u00e9","result":0}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"add","params":[9007199254740993,0]}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":9007199254740993}"#,
        ),
    ] {
        assert_eq!(raw.ask("calc.add", body).await, answer, "{body}");
    }
}

#[tokio::test]
async fn ill_formed_requests_get_their_codes() {
    let (_running, mut raw) = served().await;
    let deep = |depth: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"add","params":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let many: String = (0..10_001).map(|n| format!(r#""k{n}":0,"#)).collect();
    let long_id = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"add","params":[0,0]}}"#, "i".repeat(127));
    let cases: Vec<(String, i64)> = vec![
        ("".into(), -32700),
        ("{".into(), -32700),
        ("nonsense".into(), -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]"#.into(), -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]} {}"#.into(), -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[01,2]}"#.into(), -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\u{1}\"}".into(), -32700),
        ("[".into(), -32700),
        ("1".into(), -32600),
        ("null".into(), -32600),
        (r#""text""#.into(), -32600),
        ("true".into(), -32600),
        ("{}".into(), -32600),
        ("[]".into(), -32600),
        (r#"{"id":1,"method":"add","params":[1,2]}"#.into(), -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"add","params":[1,2]}"#.into(), -32600),
        (r#"{"jsonrpc":2.0,"id":1,"method":"add","params":[1,2]}"#.into(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"params":[1,2]}"#.into(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":1,"params":"bar"}"#.into(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#.into(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"act","params":[1,2]}"#.into(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"add","params":[1,2]}"#.into(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":1,"x":2,"y":3}}"#.into(), -32600),
        (long_id, -32600),
        (deep(64), -32600),
        (deep(10_000), -32600),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"add","params":{{{many}"x":1,"y":2}}}}"#), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add"}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":null}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":"bar"}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":7}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[]}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[1]}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2,3]}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":1}}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":1,"y":"2"}}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":1,"y":2.5}}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":true,"y":2}}"#.into(), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":1,"y":2,"z":3}}"#.into(), -32602),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"add","params":{"x":9223372036854775808,"y":0}}"#.into(),
            -32602,
        ),
    ];
    for (body, expected) in cases {
        let answer = raw.ask("calc.add", &body).await;
        assert_eq!(code(&answer), expected, "{} -> {answer}", body.chars().take(200).collect::<String>());
    }
    let answer = raw.ask("calc.nothing", r#"{"jsonrpc":"2.0","id":9,"method":"nothing"}"#).await;
    assert_eq!(code(&answer), -32601);
    assert!(answer.contains(r#""id":9"#), "{answer}");
    // And the service is unharmed.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[1,1]}"#;
    assert_eq!(raw.ask("calc.add", body).await, r#"{"jsonrpc":"2.0","id":1,"result":2}"#);
}

#[tokio::test]
async fn wrong_parameters_name_their_field_and_never_their_value() {
    let (_running, mut raw) = served().await;
    for (params, field) in [
        (r#"{"x":1}"#, "y"),
        (r#"{"x":1,"y":"canary"}"#, "y"),
        (r#"{"x":1,"y":2,"canary_field":3}"#, "canary_field"),
        (r#"{"x":["canary"],"y":2}"#, "x"),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"add","params":{params}}}"#);
        let answer: Value = serde_json::from_str(&raw.ask("calc.add", &body).await).unwrap();
        assert_eq!(answer["error"]["data"]["faults"][0]["field"], field, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(field), "{answer}");
        assert!(!answer.to_string().contains("\"canary\""), "{answer}");
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_text() {
    let (_running, mut raw) = served().await;
    let answer = raw.ask("calc.act", r#"{"jsonrpc":"2.0","id":1,"method":"act","params":["panic"]}"#).await;
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"internal error"}}"#);
    let answer = raw.ask("calc.act", r#"{"jsonrpc":"2.0","id":2,"method":"act","params":["on"]}"#).await;
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":2,"result":"on"}"#);
}

#[tokio::test]
async fn an_error_travels_with_its_data() {
    let (_running, mut raw) = served().await;
    let answer = raw.ask("calc.act", r#"{"jsonrpc":"2.0","id":1,"method":"act","params":["fail"]}"#).await;
    assert_eq!(
        answer,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":409,"message":"taken","data":{"by":"another"}}}"#
    );
}

#[tokio::test]
async fn a_notification_gets_no_answer() {
    let (_running, mut raw) = served().await;
    raw.send("calc.add", r#"{"jsonrpc":"2.0","method":"add","params":[1,1]}"#).await;
    raw.send("calc.nothing", r#"{"jsonrpc":"2.0","method":"nothing"}"#).await;
    // One instance, and answers keep no order; but had the first two answered, one of three answers would be theirs.
    raw.send("calc.add", r#"{"jsonrpc":"2.0","id":3,"method":"add","params":[1,2]}"#).await;
    raw.send("calc.add", r#"{"jsonrpc":"2.0","id":3,"method":"add","params":[1,2]}"#).await;
    for _ in 0..2 {
        assert_eq!(raw.answer().await, r#"{"jsonrpc":"2.0","id":3,"result":3}"#);
    }
}

#[tokio::test]
async fn a_batch_is_answered_one_by_one() {
    let (_running, mut raw) = served().await;
    let answer = raw
        .ask(
            "calc.batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}, {"jsonrpc":"2.0","method":"add","params":[0,0]},
                {"jsonrpc":"2.0","id":2,"method":"act","params":["fail"]}, 1, {"jsonrpc":"2.0","id":"x","method":"nothing"},
                {"jsonrpc":"2.0","id":5,"method":"act","params":{"name":"n"}}]"#,
        )
        .await;
    let answers: Vec<Value> = serde_json::from_str(&answer).unwrap();
    assert_eq!(answers.len(), 5, "{answer}");
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": 1, "result": 3}));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(2), &json!(409)));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&json!(null), &json!(-32600)));
    assert_eq!((&answers[3]["id"], &answers[3]["error"]["code"]), (&json!("x"), &json!(-32601)));
    assert_eq!(answers[4], json!({"jsonrpc": "2.0", "id": 5, "result": "n"}));
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}"#;
    let full: Vec<Value> =
        serde_json::from_str(&raw.ask("calc.batch", &format!("[{}]", [one; 50].join(","))).await).unwrap();
    assert_eq!(full.len(), 50);
    assert_eq!(code(&raw.ask("calc.batch", &format!("[{}]", [one; 51].join(","))).await), -32600);
}

#[tokio::test]
async fn a_batch_goes_to_its_own_key_only() {
    let (_running, mut raw) = served().await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}]"#;
    assert_eq!(code(&raw.ask("calc.add", batch).await), -32600);
    assert_eq!(code(&raw.ask("calc.anything", batch).await), -32600);
    assert_eq!(raw.ask("calc.batch", batch).await, r#"[{"jsonrpc":"2.0","id":1,"result":3}]"#);
}
