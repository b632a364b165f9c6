//! Who may connect, and what a certificate is good for.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::time::{Duration, Instant, SystemTime};

use rig::{Ended, Raw, Rig, TENANT, anonymous_config, client_config, identity, lock};
use server::pki::{DevelopmentPki, Validity};
use surety_protocol::{CloseCode, Code, Roles, Seq, TenantId, Token};

/// Connects and exchanges hellos; tells how that ended.
async fn try_greet(rig: &Rig, config: quinn::ClientConfig, tenant: TenantId) -> Result<Roles, Ended> {
    let mut raw = Raw::connect_with(rig.address(0), config).await?;
    let hello = raw.greet(tenant, &[]).await?;
    assert_eq!(hello.tenant, tenant);
    Ok(Roles(hello.roles))
}

fn expect_tls_refusal(result: Result<Roles, Ended>) {
    match result {
        Err(Ended::Other(text)) => assert!(text.contains("cryptographic handshake failed"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_certificates_of_this_authority_get_in() {
    let rig = Rig::start(1);
    let good = rig.identity("authorizer");
    assert_eq!(try_greet(&rig, client_config(&good), TENANT).await.unwrap(), Roles::AUTHORIZER);
    expect_tls_refusal(try_greet(&rig, anonymous_config(&good), TENANT).await);

    // Another authority's certificate, by a client that trusts ours.
    let stranger = DevelopmentPki::generate().unwrap();
    let theirs = stranger.client(TENANT, Roles::AUTHORIZER, "x").unwrap();
    let forged = theirs.replace(stranger.ca_pem(), rig.pki().ca_pem());
    expect_tls_refusal(try_greet(&rig, client_config(&forged), TENANT).await);

    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    for (from, until) in [(now - 2 * day, now - day), (now + day, now + 2 * day)] {
        let validity = Validity { from, until };
        let pem = rig.pki().client_valid(TENANT, Roles::AUTHORIZER, "x", validity).unwrap();
        expect_tls_refusal(try_greet(&rig, client_config(&pem), TENANT).await);
    }
}

#[tokio::test]
async fn a_certificate_speaks_for_its_own_tenant_and_roles() {
    let rig = Rig::start(1);
    let pem = identity(&rig, 7, Roles::READER | Roles::AUTHORIZER);
    let roles = try_greet(&rig, client_config(&pem), TenantId(7)).await.unwrap();
    assert_eq!(roles, Roles::READER | Roles::AUTHORIZER);
    match try_greet(&rig, client_config(&pem), TenantId(8)).await {
        Err(Ended::Code(code)) => assert_eq!(code, CloseCode::TenantMismatch),
        other => panic!("{other:?}"),
    }
    let reader = identity(&rig, 7, Roles::READER);
    let mut raw = Raw::connect(rig.address(0), &reader).await.unwrap();
    raw.greet(TenantId(7), &[]).await.unwrap();
    assert_eq!(raw.ask(lock(0)).await.unwrap().0.code(), Code::NoRight);
}

#[tokio::test]
async fn a_token_counts_only_as_this_engine_has_signed_it() {
    let rig = Rig::start(1);
    let mut authorizer = rig.authorizer(0).await;
    let (_, mut token) = authorizer.ask(lock(0)).await.unwrap();
    // A reply at durability `os` may come before the first sync; a token of a later one tells of it.
    while token.synced == Seq(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        token = authorizer.ask(lock(0)).await.unwrap().1;
    }
    let config = client_config(&rig.identity("authorizer"));
    // As it was given it is welcome; moved to an earlier seq it says nothing wrong, but nobody has signed that.
    for (synced, is_welcome) in [(token.synced, true), (Seq(token.synced.0 - 1), false)] {
        let mut raw = Raw::connect_with(rig.address(0), config.clone()).await.unwrap();
        let greeted = raw.greet(TENANT, &[Token { synced, ..token }]).await;
        assert_eq!(greeted.is_ok(), is_welcome);
        if !is_welcome {
            raw.expect_close(CloseCode::BadToken).await;
        }
    }
    assert!(!rig.running().is_forked());
}

#[tokio::test]
async fn a_server_certificate_is_no_client_certificate() {
    let rig = Rig::start(1);
    let (certificate, key) = rig.pki().server(&[]).unwrap();
    let pem = format!("{certificate}{key}{}", rig.pki().ca_pem());
    expect_tls_refusal(try_greet(&rig, client_config(&pem), TENANT).await);
}

#[tokio::test]
async fn early_data_is_off_and_no_session_is_resumed() {
    let rig = Rig::start(1);
    let config = client_config(&rig.identity("authorizer"));
    let mut first = Raw::connect_with(rig.address(0), config.clone()).await.unwrap();
    first.greet(TENANT, &[]).await.unwrap();
    // A ticket would have arrived by now; without one there is nothing to send early data under.
    let connecting = first.endpoint.connect_with(config, rig.address(0), "localhost").unwrap();
    assert!(connecting.into_0rtt().is_err());
}

#[tokio::test]
async fn unidirectional_streams_and_datagrams_are_not_offered() {
    let rig = Rig::start(1);
    let raw = rig.authorizer(0).await;
    assert_eq!(raw.connection.max_datagram_size(), None);
    let opened = tokio::time::timeout(Duration::from_millis(50), raw.connection.open_uni()).await;
    assert!(opened.is_err(), "no stream is granted");
}

#[tokio::test]
async fn another_authority_counts_after_a_reload() {
    let rig = Rig::start(1);
    let config = client_config(&rig.identity("authorizer"));
    let pki = server::pki_path(rig.path());
    let open = rig.authorizer(0).await;
    // A new authority takes the place of the old one.
    for name in ["ca.pem", "ca.key", "server.pem", "server.key"] {
        std::fs::remove_file(pki.join(name)).unwrap();
    }
    for name in ["admin.pem", "settler.pem", "reader.pem", "authorizer.pem"] {
        std::fs::remove_file(pki.join(name)).unwrap();
    }
    DevelopmentPki::create(&pki).unwrap();
    rig.running().reload();
    // The order is carried out soon; until then the old certificate gets in.
    while try_greet(&rig, config.clone(), TENANT).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let new = client_config(&rig.identity("authorizer"));
    try_greet(&rig, new, TENANT).await.unwrap();
    open.expect_close(CloseCode::BadCertificate).await;
}

#[tokio::test]
async fn a_revoked_certificate_is_cut_off_and_the_others_are_not() {
    let rig = Rig::start(2);
    let revoked = identity(&rig, TENANT.0, Roles::AUTHORIZER);
    let mut open = Vec::new();
    for shard in 0..2 {
        let mut raw = Raw::connect(rig.address(shard), &revoked).await.unwrap();
        raw.greet(TENANT, &[]).await.unwrap();
        raw.ask(lock(shard)).await.unwrap();
        open.push(raw);
    }
    let mut good = rig.authorizer(0).await;
    let list = server::pki_path(rig.path()).join("revoked.pem");
    std::fs::write(&list, rig.pki().revocations(std::slice::from_ref(&revoked)).unwrap()).unwrap();
    // Until it is told to look, the server knows nothing of it.
    open[0].ask(lock(0)).await.unwrap();
    rig.running().reload();
    for raw in &open {
        raw.expect_close(CloseCode::BadCertificate).await;
    }
    expect_tls_refusal(try_greet(&rig, client_config(&revoked), TENANT).await);
    good.ask(lock(0)).await.expect("nobody else is closed");
    rig.authorizer(0).await.ask(lock(0)).await.unwrap();
    // What is no list changes nothing: nothing at all, a broken one, the certificate itself, which is not how it is revoked,
    // or the list of an authority that has nothing but the name of this one.
    let other = tempfile::tempdir().unwrap();
    let other = DevelopmentPki::create(other.path()).unwrap();
    let stranger = other.client(TENANT, Roles::AUTHORIZER, "x").unwrap();
    let foreign = other.revocations(&[stranger]).unwrap();
    let own = std::fs::read_to_string(&list).unwrap();
    let twice = format!("{own}{own}");
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (index, content) in ["", broken, &revoked, &foreign, &twice].into_iter().enumerate() {
        std::fs::write(&list, content).unwrap();
        rig.running().reload();
        while rig.metric("surety_reload_failures_total", 0).await <= index as u64 {
            tokio::task::yield_now().await;
        }
        good.ask(lock(0)).await.unwrap();
        rig.authorizer(0).await.ask(lock(0)).await.expect("who is not revoked gets in");
        expect_tls_refusal(try_greet(&rig, client_config(&revoked), TENANT).await);
    }
    assert!(rig.pki().revocations(&["no certificate".to_owned()]).is_err());
    // Without the list it is good again.
    std::fs::remove_file(&list).unwrap();
    rig.running().reload();
    while try_greet(&rig, client_config(&revoked), TENANT).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let rig = Rig::start(1);
    let client = |seconds| {
        let now = SystemTime::now();
        let (from, until) = (now - Duration::from_secs(3600), now + Duration::from_secs(seconds));
        (until, rig.pki().client_valid(TENANT, Roles::AUTHORIZER, "x", Validity { from, until }).unwrap())
    };
    let mut stays = Raw::connect(rig.address(0), &client(600).1).await.unwrap();
    stays.greet(TENANT, &[]).await.unwrap();
    // A short life, and a longer one if the machine is too busy to use it.
    let mut lives = [2, 4, 8].into_iter();
    let (short, until) = loop {
        stays.ask(lock(0)).await.unwrap();
        let (until, short) = client(lives.next().expect("an answer within a certificate's life"));
        let Ok(mut ends) = Raw::connect(rig.address(0), &short).await else { continue };
        if ends.greet(TENANT, &[]).await.is_ok() && ends.ask(lock(0)).await.is_ok() {
            ends.expect_close(CloseCode::BadCertificate).await;
            break (short, until);
        }
    };
    // The certificate states whole seconds; not one of them is taken away.
    assert!(SystemTime::now() >= until - Duration::from_secs(1));
    stays.ask(lock(0)).await.unwrap();
    expect_tls_refusal(try_greet(&rig, client_config(&short), TENANT).await);
}

#[tokio::test]
async fn a_tenant_that_is_shut_out_loses_its_connections_and_gets_them_back() {
    let rig = Rig::start(1);
    let mut raw = rig.authorizer(0).await;
    let (first, _) = raw.ask(lock(0)).await.unwrap();
    assert_eq!(first.code(), Code::Approved);
    rig.set_tenant(0, |tenant| tenant.enabled = 0).await;
    // Refused at once, then closed.
    loop {
        match raw.ask(lock(0)).await {
            Ok((reply, _)) => assert_eq!(reply.code(), Code::NoRight),
            Err(Ended::Code(code)) => break assert_eq!(code, CloseCode::BadCertificate),
            Err(Ended::Other(other)) => panic!("{other}"),
        }
    }
    match try_greet(&rig, client_config(&rig.identity("authorizer")), TENANT).await {
        Err(Ended::Code(code)) => assert_eq!(code, CloseCode::BadCertificate),
        other => panic!("{other:?}"),
    }
    rig.set_tenant(0, |_| {}).await;
    assert_eq!(rig.authorizer(0).await.ask(lock(0)).await.unwrap().0.code(), Code::Approved);
}

#[tokio::test]
async fn a_certificate_that_opens_too_many_connections_is_slowed_down() {
    let rig = Rig::start_with(1, |config| config.limits.connections_per_s_certificate = 1);
    let config = client_config(&rig.identity("authorizer"));
    let (mut passed, mut refused) = (0, 0);
    let begun = Instant::now();
    while refused < 2 {
        match try_greet(&rig, config.clone(), TENANT).await {
            Ok(_) => passed += 1,
            Err(Ended::Code(code)) => {
                assert_eq!(code, CloseCode::TooMany);
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        let seconds = begun.elapsed().as_secs() + 1;
        assert!(passed <= 4 + seconds, "{passed} in {seconds} s: more than a burst and one a second");
        assert!(seconds < 60, "nobody is refused");
    }
    assert!(passed >= 4, "a burst of four passes: {passed}");
    let other = identity(&rig, 7, Roles::READER);
    try_greet(&rig, client_config(&other), TenantId(7)).await.unwrap();
}
