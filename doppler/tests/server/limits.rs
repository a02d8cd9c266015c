//! Limits: message size, connections, and who may connect at all.

use bytes::Bytes;
use loggregator_net::grpc::{ClientSettings, Code};
use loggregator_proto::{plumbing, rpc, v2};

use crate::harness::*;

const LIMIT: usize = 10 << 20;

/// A batch of one log that is exactly `size` bytes long.
fn batch_of(size: usize) -> v2::EnvelopeBatch {
    let with = |payload: usize| v2::EnvelopeBatch {
        batch: vec![log("app", &"x".repeat(payload))],
    };
    let overhead = encode(&with(size / 2)).len() - size / 2;
    let batch = with(size - overhead);
    assert_eq!(encode(&batch).len(), size);
    batch
}

#[tokio::test]
async fn a_message_of_the_limit_passes_and_one_byte_more_is_refused_beside_healthy_streams() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let mut healthy = client.batch_sender().await;
    healthy.batch(logs("app", 0, 1)).await;
    assert_eq!(payloads(&reader.take(1).await), ["0"]);

    let largest = batch_of(LIMIT);
    client.send_once(rpc::INGRESS_BATCH_SENDER, &largest).await;
    assert_eq!(reader.take(1).await, largest.batch);

    for path in [
        rpc::INGRESS_BATCH_SENDER,
        rpc::INGRESS_SENDER,
        rpc::DOPPLER_INGESTOR_PUSHER,
    ] {
        let sender = client.sender(path).await;
        // The stream may already have ended when the client has sent it all.
        let _refused = sender.sender.send(encode(&batch_of(LIMIT + 1))).await;
        let status = sender.finish().await.unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (10485761 vs. 10485760)"
            ),
            "{path}"
        );
    }
    assert_eq!(doppler.report().ingress.rejected.get("too_large"), Some(&3));

    healthy.batch(logs("app", 1, 1)).await;
    assert_eq!(payloads(&reader.take(1).await), ["1"]);
    doppler.assert_balanced();
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let request = plumbing::SubscriptionRequest {
        shard_id: "x".repeat(LIMIT),
        filter: None,
    };
    let mut messages = client
        .channel
        .server_stream(rpc::DOPPLER_SUBSCRIBE, encode(&request))
        .await
        .unwrap();
    assert_eq!(
        end(&mut messages).await.unwrap().code,
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_counted() {
    let doppler = Doppler::start_with(|config| config.max_connections = 2).await;
    let (one, two) = (doppler.connect(), doppler.connect());
    within("the first", one.channel.ready()).await.unwrap();
    within("the second", two.channel.ready()).await.unwrap();
    let three = doppler.connect_with(ClientSettings::default());
    within("a refusal", three.channel.ready())
        .await
        .unwrap_err();
    let refused = &doppler.running.server.refused_over_limit;
    assert!(refused.load(std::sync::atomic::Ordering::Relaxed) >= 1);
    // Those inside do not notice.
    assert_eq!(
        within(
            "an answer",
            one.channel.unary(rpc::INGRESS_SEND, Bytes::new())
        )
        .await,
        Ok(Bytes::new())
    );
}

#[tokio::test]
async fn only_clients_of_the_same_authority_get_in() {
    let doppler = Doppler::start().await;
    let mut stranger = doppler.connect();
    stranger.channel = doppler.channel(Pki::new().client_tls_trusting(Pki::shared()), "doppler");
    let answer = within(
        "a refusal",
        stranger.channel.unary(rpc::INGRESS_SEND, Bytes::new()),
    )
    .await;
    assert_eq!(answer.unwrap_err().code, Code::Unavailable);
    assert_eq!(doppler.report().ingress.received, 0);
}

#[tokio::test]
async fn a_doppler_under_another_name_is_not_trusted() {
    let doppler = Doppler::start_with(|config| config.tls = Pki::shared().files("metron")).await;
    let answer = within(
        "a refusal",
        doppler
            .connect()
            .channel
            .unary(rpc::INGRESS_SEND, Bytes::new()),
    )
    .await;
    assert_eq!(answer.unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn changed_certificate_files_are_taken_over_and_bad_ones_are_not() {
    let (old, new) = (Pki::new(), Pki::new());
    let files = old.doppler();
    let reload = std::time::Duration::from_millis(20);
    let doppler = Doppler::start_with(|config| {
        config.tls = files.clone();
        config.tls_reload_interval = reload;
    })
    .await;
    let before = doppler.channel(old.client_tls(), "doppler");
    assert_eq!(
        within("an answer", before.unary(rpc::INGRESS_SEND, Bytes::new())).await,
        Ok(Bytes::new())
    );

    // Unusable files change nothing.
    std::fs::write(&files.key, "no key").unwrap();
    eventually("the bad key to be noticed", || {
        (doppler.running.tls.reload_failures() > 0).then_some(())
    })
    .await;
    let still = doppler.channel(old.client_tls(), "doppler");
    assert_eq!(
        within("an answer", still.unary(rpc::INGRESS_SEND, Bytes::new())).await,
        Ok(Bytes::new())
    );

    for (from, to) in [
        (new.doppler().ca, &files.ca),
        (new.doppler().cert, &files.cert),
        (new.doppler().key, &files.key),
    ] {
        std::fs::copy(from, to).unwrap();
    }
    let after = doppler.channel(new.client_tls(), "doppler");
    within("the new certificate to be served", async {
        while after.unary(rpc::INGRESS_SEND, Bytes::new()).await.is_err() {
            tokio::time::sleep(reload).await;
        }
    })
    .await;
    // A connection that was there stays.
    assert_eq!(
        within("an answer", before.unary(rpc::INGRESS_SEND, Bytes::new())).await,
        Ok(Bytes::new())
    );
}
