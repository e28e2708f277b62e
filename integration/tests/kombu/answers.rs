//! How our services answer callers written with Kombu: as the reference does, where it was right.

use commissaire_integration::{Outcome, ensure};
use serde_json::{Value, json};

use super::{ask, site};

#[tokio::test]
async fn ids_of_any_type_come_back_as_they_were() -> Outcome {
    let mut site = site("").await?;
    let _simple = site.service("simple", &[]).await?;
    let ids = [json!(1), json!("x"), json!(-1), json!(1.5), json!(true), json!([1, "a"]), json!({"a": null})];
    let asked: Vec<Value> = ids
        .iter()
        .map(|id| {
            let body = json!({"jsonrpc": "2.0", "id": id, "method": "add", "params": {"x": 2, "y": 3}});
            json!({"key": "simple.add", "body": body})
        })
        .collect();
    for (id, told) in ids.iter().zip(ask(&mut site, &asked).await?) {
        ensure!(told["answer"]["id"] == *id && told["answer"]["result"] == 5, "to id {id} came {told}");
    }
    Ok(())
}

#[tokio::test]
async fn bodies_of_both_content_types_are_read() -> Outcome {
    let mut site = site("").await?;
    let _simple = site.service("simple", &[]).await?;
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "add", "params": [2, 3]});
    let text = request.to_string();
    let asked = [
        json!({"key": "simple.add", "body": request}),
        // A text goes out as text/plain; in a JSON string when JSON is asked for.
        json!({"key": "simple.add", "body": text}),
        json!({"key": "simple.add", "body": text, "sending": {"serializer": "json"}}),
        json!({"key": "simple.add", "body": text, "sending": {"priority": 9}}),
        json!({"key": "simple.wordy_add", "params": {"x": 2, "y": 3}, "id": 7}),
    ];
    for (at, told) in ask(&mut site, &asked).await?.into_iter().enumerate() {
        let right = if at == 4 { json!("2 + 3 = 5") } else { json!(5) };
        ensure!(told["answer"]["result"] == right, "to call {at} came {told}");
    }
    Ok(())
}

#[tokio::test]
async fn errors_have_the_codes_that_callers_know() -> Outcome {
    let mut site = site("").await?;
    let data = site.place.data().display().to_string();
    let _storage = site.service("storage", &["--data-dir", &data]).await?;
    let missing = json!({"model_type_name": "Network", "model_json_data": {"name": "nope"}});
    let asked = [
        json!({"key": "storage.get", "params": missing}),
        json!({"key": "storage.nothing", "params": {}}),
        json!({"key": "storage.get", "params": {"model_type_name": "Nothing", "model_json_data": {}}}),
        json!({"key": "storage.get", "body": {"jsonrpc": "2.0", "id": 1, "method": "save"}}),
        json!({"key": "storage.get", "body": "no JSON at all"}),
        json!({"key": "storage.get", "body": [1, 2]}),
    ];
    let codes: Vec<Value> =
        ask(&mut site, &asked).await?.iter().map(|told| told["answer"]["error"]["code"].clone()).collect();
    ensure!(codes == [-20000, -32601, -32602, -32600, -32700, -32600], "the codes are {codes:?}");
    let told = ask(&mut site, &asked[..1]).await?;
    let error = &told[0]["answer"]["error"];
    ensure!(error["data"]["model_type_name"] == "Network", "a lookup that failed says {error}");
    Ok(())
}

#[tokio::test]
async fn members_that_we_do_not_know_are_ignored() -> Outcome {
    let mut site = site("").await?;
    let data = site.place.data().display().to_string();
    let _services =
        (site.service("simple", &[]).await?, site.service("storage", &["--data-dir", &data]).await?);
    let record = json!({"name": "web", "status": "ok", "colour": "blue"});
    let named =
        |record: &Value| json!({"model_type_name": "Cluster", "model_json_data": record, "trace": {"x": 1}});
    let asked = [
        json!({"key": "simple.add", "params": {"x": 2, "y": 3, "z": 4}}),
        json!({"key": "storage.save", "params": named(&record)}),
        json!({"key": "storage.get", "params": named(&record)}),
        json!({"key": "simple.add", "body":
            {"jsonrpc": "2.0", "id": 1, "method": "add", "params": [2, 3], "auth": "none", "v": 7}}),
        json!({"key": "simple.add", "params": {"x": 2, "z": 4}}),
    ];
    let told = ask(&mut site, &asked).await?;
    let results: Vec<&Value> = told.iter().map(|told| &told["answer"]["result"]).collect();
    ensure!(*results[0] == 5 && *results[3] == 5, "{told:?}");
    ensure!(results[1]["status"] == "ok" && results[1] == results[2], "{told:?}");
    ensure!(results[1].get("colour").is_none(), "what is no field was stored: {told:?}");
    ensure!(told[4]["answer"]["error"]["code"] == -32602, "a member that is missing: {told:?}");
    // Ours are told what they got wrong.
    let ended = site.cli(&["call", "simple.add", r#"{"x": 2, "y": 3, "z": 4}"#])?.run().await?.expect(1)?;
    ensure!(ended.error()?["code"] == -32602, "{}", ended.err);
    Ok(())
}

#[tokio::test]
async fn a_reply_goes_to_no_queue_of_somebody_else() -> Outcome {
    let mut site = site("").await?;
    let _simple = site.service("simple", &[]).await?;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "add", "params": [2, 3]});
    let line = json!({"key": "simple.add", "body": body, "sending": {"reply_to": "watcher"}});
    super::peer(&mut site, "publish", &json!({}))?.input(format!("{line}\n")).run().await?.expect(0)?;
    let told = ask(&mut site, &[json!({"key": "simple.add", "params": [2, 3]})]).await?;
    ensure!(told[0]["answer"]["result"] == 5, "after it came {told:?}");
    let length = super::redis(&mut site, &["LLEN", "watcher"]).await?;
    ensure!(length == 0, "a reply was pushed into a queue: {length}");
    Ok(())
}
