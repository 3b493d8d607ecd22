"""More entries of `providers`: those that sign with key pairs, and with tokens."""

import base64
import gzip
import hashlib

import discord_interactions
import jwt
import livekit.api
import messagebird.request_validator
import sendgrid.helpers.eventwebhook
import stream_chat
import telnyx.lib.webhook_verification
import vonage_jwt
import workos
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from providers import BODIES, digest, entry, hexed

# The private halves, by what the source is given: the public one in the provider's own notation.
PRIVATE = {}


def edwards(write):
    """Two Ed25519 keys."""
    keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(2)]
    return tuple(keep(key, write(key.public_key().public_bytes_raw())) for key in keys)


def curve():
    """Two P-256 keys."""
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    return tuple(keep(key, base64.b64encode(key.public_key().public_bytes(*form)).decode()) for key in keys)


def keep(key, public):
    PRIVATE[public] = key
    return public


def discord(r):
    signature = PRIVATE[r.secret].sign(f"{r.now}".encode() + r.body)
    r.headers |= {"X-Signature-Ed25519": signature.hex(), "X-Signature-Timestamp": str(r.now)}


def discord_says(r):
    return discord_interactions.verify_key(
        r.body, r.headers["X-Signature-Ed25519"], r.headers["X-Signature-Timestamp"], r.secret
    )


def telnyx_(r):
    signature = PRIVATE[r.secret].sign(f"{r.now}|".encode() + r.body)
    r.headers |= {
        "telnyx-signature-ed25519": base64.b64encode(signature).decode(),
        "telnyx-timestamp": str(r.now),
    }


SENDGRID = "X-Twilio-Email-Event-Webhook-"


def sendgrid_(r):
    signature = PRIVATE[r.secret].sign(f"{r.now}".encode() + r.body, ec.ECDSA(hashes.SHA256()))
    r.headers |= {SENDGRID + "Signature": base64.b64encode(signature).decode(), SENDGRID + "Timestamp": str(r.now)}


def sendgrid_says(r):
    library = sendgrid.helpers.eventwebhook.EventWebhook()
    key = library.convert_public_key_to_ecdsa(r.secret)
    return library.verify_signature(r.text, r.headers[SENDGRID + "Signature"], r.headers[SENDGRID + "Timestamp"], key)


def livekit_(r):
    sha256 = base64.b64encode(hashlib.sha256(r.body).digest()).decode()
    claims = {"iss": "APIkeyOfIt", "sha256": sha256, "nbf": r.now, "exp": r.now + 60}
    r.headers["Authorization"] = jwt.encode(claims, r.secret, "HS256")


def livekit_says(r):
    verifier = livekit.api.TokenVerifier("APIkeyOfIt", r.secret)
    return livekit.api.WebhookReceiver(verifier).receive(r.text, r.headers["Authorization"]) is not None


def messagebird_(r):
    claims = {
        "iss": "MessageBird",
        "jti": r.ident,
        "nbf": r.now,
        "exp": r.now + 60,
        "url_hash": hashlib.sha256(r.url.encode()).hexdigest(),
        "payload_hash": hashlib.sha256(r.body).hexdigest(),
    }
    r.headers["MessageBird-Signature-JWT"] = jwt.encode(claims, r.secret, "HS256")


def messagebird_says(r):
    validator = messagebird.request_validator.RequestValidator(r.secret)
    return validator.validate_signature(r.headers["MessageBird-Signature-JWT"], r.url, r.body) is not None


def vonage(r):
    claims = {"iss": "Vonage", "iat": r.now, "jti": r.ident, "payload_hash": hashlib.sha256(r.body).hexdigest()}
    r.headers["Authorization"] = "Bearer " + jwt.encode(claims, r.secret, "HS256")


def vonage_says(r):
    # The library judges the token and leaves the body to its user.
    token = r.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    bound = claims["payload_hash"] == hashlib.sha256(r.body).hexdigest()
    return vonage_jwt.verify_signature(token, r.secret) and bound


def workos_(r):
    signature = digest(r.secret, f"{r.now * 1000}.{r.text}").hexdigest()
    r.headers["WorkOS-Signature"] = f"t={r.now * 1000}, v1={signature}"


def workos_says(r):
    client = workos.WorkOSClient(api_key="k", client_id="c")
    client.webhooks.verify_header(event_body=r.body, event_signature=r.headers["WorkOS-Signature"], secret=r.secret)


def stream(r):
    hexed("X-Signature")(r)
    if r.ident.endswith("-1"):
        # What is signed is what was compressed.
        r.body = gzip.compress(r.body)
        r.headers["content-encoding"] = "gzip"


def stream_changed(body):
    if body.startswith(b"{"):
        return body.replace(b"a.b", b"a.c")
    return gzip.compress(gzip.decompress(body).replace(b"a.b", b"a.c"))


def stream_says(r):
    client = stream_chat.StreamChat(api_key="k", api_secret=r.secret)
    return client.verify_and_parse_webhook(r.body, r.headers["X-Signature"]) is not None


entry("discord", discord, discord_says, edwards(bytes.hex))
entry(
    "telnyx",
    telnyx_,
    lambda r: telnyx.lib.webhook_verification.verify_webhook_signature(r.body, r.headers, r.secret),
    edwards(lambda raw: base64.b64encode(raw).decode()),
    window=300,
)
entry("sendgrid", sendgrid_, sendgrid_says, curve(), bodies=[BODIES[0] + b"\r\n", BODIES[1]])
entry(
    "livekit",
    livekit_,
    livekit_says,
    ("a-secret-of-livekit-with-thirty-two-bytes", "another-secret-of-it-with-thirty-two-bytes"),
    bodies=[b'{"event":"a.b","id":"%s"}'],
    values={"api_key": "APIkeyOfIt"},
    kind="application/webhook+json",
)
entry(
    "messagebird",
    messagebird_,
    messagebird_says,
    ("a-secret-of-messagebird-of-thirty-two-bytes", "another-secret-of-it-with-thirty-two-bytes"),
)
entry(
    "vonage",
    vonage,
    vonage_says,
    ("a-secret-of-vonage-with-thirty-two-bytes-", "another-secret-of-it-with-thirty-two-bytes"),
)
entry("workos", workos_, workos_says, window=180)
entry(
    "stream-chat",
    stream,
    stream_says,
    ("a-secret-of-stream-chat-of-thirty-two-bytes", "another-secret-of-it-with-thirty-two-bytes"),
    bodies=[b'{"type":"message.new","cid":"a.b","message":{"id":"%s","text":"caf\xc3\xa9"}}'] * 2,
    change=stream_changed,
)
entry("notion", None, None, node="x-notion-signature")
