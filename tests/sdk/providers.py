"""The providers' own libraries, one entry a provider: how a request is signed, and what the library says of one.

Where the library signs, it does; where it only verifies, the documented rule is written out here once more. Either way
its verdict is asked for each request, and has to be the gateway's."""

import base64
import datetime
import hashlib
import hmac
import json
import types
import urllib.parse

import Adyen.util
import anthropic
import box_sdk_gen
import braintree
import cloudinary.utils
import coinbase_commerce.webhook
import dodopayments
import elevenlabs.client
import gocardless_pro.webhooks
import hubspot.utils.signature
import increase
import linebot.v3.webhook
import lithic
import mailgun.security
import mercadopago.webhook
import modern_treasury
import mollie.utils.webhooks.signature_validator as mollie
import onfido.webhook_event_verifier as onfido
import openai
import paddle_billing.Notifications as paddle
import plivo.utils.signature_v3 as plivo
import polar.v2026_10.webhooks as polar
import pusher
import pyairtable.models.webhook as airtable
import razorpay
import replicate.webhook
import resend
import retell.lib.webhook_auth as retell
import sinch.domains.authentication.sinch_events.v1.authentication_validation as sinch
import slack_sdk.signature
import smartcar
import square.utils.webhooks_helper
import standardwebhooks
import stripe
import svix
import twilio.request_validator
import viberbot.api.api
import viberbot.api.bot_configuration

PUBLIC = "https://hooks.example.com"
ALL = {}
STANDARD = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
HEXADECIMAL = ("44782def547aaa06c910c43932b1eb0c71fc68d9d0c057550c48ec2acf6ba056", "00" * 32)
BASE64 = ("bXktc2VjcmV0LW9mLXRoZS1tYWM=", "YW5vdGhlci1zZWNyZXQtb2YtaXQ=")

# Bodies with what breaks careless verifiers: spaces, escapes, other scripts, large numbers, a line break at the end.
BODIES = [
    b'{"id":"%s","type":"a.b","n":12345678901234567890}',
    b'{ "id" : "%s",\n  "type" : "a.b", "text": "\\u00e9 \xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac" }\n',
    b'{"id":"%s","type":"a.b","html":"<b>&amp;</b>","x":1.50}',
]


class Request:
    """A request as a provider makes it."""

    def __init__(self, entry, secret, body, ident, now):
        self.entry, self.secret, self.ident, self.now = entry, secret, ident, now
        self.body = body.replace(b"%s", ident.encode()).replace(b"%t", str(now).encode())
        self.path = f"/hooks/{entry.name}{entry.query}"
        self.url = PUBLIC + self.path
        self.headers = {"content-type": entry.kind}

    @property
    def text(self):
        return self.body.decode()

    @property
    def form(self):
        return dict(urllib.parse.parse_qsl(self.text, keep_blank_values=True))

    @property
    def time(self):
        return datetime.datetime.fromtimestamp(self.now, datetime.timezone.utc)


def entry(
    name,
    sign,
    verify,
    secrets=None,
    *,
    bodies=None,
    change=(b'"a.b"', b'"a.c"'),
    window=None,
    values=None,
    kind="application/json",
    query="",
    node=False,
):
    """`window` is how old a request may be at most, where the library looks at that."""
    secrets = secrets or (f"a-secret-of-{name}", f"another-secret-of-{name}")
    ALL[name] = types.SimpleNamespace(
        name=name,
        sign=sign,
        verify=verify,
        secret=secrets[0],
        other=secrets[1],
        bodies=bodies or BODIES,
        change=change,
        window=window,
        values=values or {},
        kind=kind,
        query=query,
        node=node,
    )


def digest(secret, content, algorithm="sha256"):
    key = secret if isinstance(secret, bytes) else secret.encode()
    return hmac.new(key, content if isinstance(content, bytes) else content.encode(), algorithm)


def hexed(header, content=lambda r: r.body, prefix="", algorithm="sha256", key=str.encode):
    """Signs with HMAC in hexadecimal, in a header."""

    def sign(r):
        r.headers[header] = prefix + digest(key(r.secret), content(r), algorithm).hexdigest()

    return sign


def based(header, content=lambda r: r.body, key=str.encode):
    """The same in base64."""

    def sign(r):
        r.headers[header] = base64.b64encode(digest(key(r.secret), content(r)).digest()).decode()

    return sign


def listed(header, version="v1", separator=".", ts="t", between=","):
    """Signs the time and the body, in a list."""

    def sign(r):
        signature = digest(r.secret, f"{r.now}{separator}{r.text}").hexdigest()
        r.headers[header] = f"{ts}={r.now}{between}{version}={signature}"

    return sign


def standard(library=standardwebhooks, prefix="webhook", raw=False):
    def sign(r):
        webhook = library.Webhook(r.secret.encode() if raw else r.secret)
        signature = webhook.sign(r.ident, r.time, r.text)
        r.headers |= {f"{prefix}-id": r.ident, f"{prefix}-timestamp": str(r.now), f"{prefix}-signature": signature}

    return sign


def polar_says(r):
    try:
        polar.validate_event(r.text, r.headers, r.secret)
    except polar.PolarWebhookUnknownTypeError:
        pass  # The signature is judged before the type.


# Standard Webhooks and those who use it.
entry(
    "standard-webhooks",
    standard(),
    lambda r: standardwebhooks.Webhook(r.secret).verify(r.text, r.headers),
    STANDARD,
    window=300,
)
entry("svix", standard(svix, "svix"), lambda r: svix.Webhook(r.secret).verify(r.text, r.headers), STANDARD, window=300)
entry(
    "openai",
    standard(),
    lambda r: openai.OpenAI(api_key="k").webhooks.verify_signature(r.text, r.headers, secret=r.secret),
    STANDARD,
    window=300,
)
entry(
    "anthropic",
    standard(),
    lambda r: anthropic.Anthropic(api_key="k").beta.webhooks.unwrap(r.text, headers=r.headers, key=r.secret),
    STANDARD,
    window=300,
)
entry(
    "lithic",
    standard(),
    lambda r: lithic.Lithic(api_key="k").webhooks.verify_signature(r.text, r.headers, secret=r.secret),
    STANDARD,
    window=300,
)
entry(
    "increase",
    standard(raw=True),
    lambda r: increase.Increase(api_key="k").events.unwrap(r.text, headers=r.headers, key=r.secret.encode()),
    window=300,
)
entry(
    "dodopayments",
    standard(),
    lambda r: dodopayments.DodoPayments(bearer_token="k").webhooks.unwrap(r.text, headers=r.headers, key=r.secret),
    STANDARD,
    window=300,
)
entry("polar", standard(raw=True), polar_says, window=300)
entry(
    "replicate",
    standard(),
    lambda r: replicate.webhook.Webhooks.validate(
        headers=r.headers, body=r.text, secret=replicate.webhook.WebhookSigningSecret(key=r.secret), tolerance=300
    ),
    STANDARD,
    window=300,
)
entry(
    "resend",
    standard(svix, "svix"),
    lambda r: resend.Webhooks.verify(
        {
            "payload": r.text,
            "webhook_secret": r.secret,
            "headers": {k: r.headers[f"svix-{k}"] for k in ("id", "timestamp", "signature")},
        }
    ),
    STANDARD,
    window=300,
)
entry("clerk", standard(svix, "svix"), None, STANDARD, window=300, node=True)


# A time and the body.
def slack(r):
    signature = slack_sdk.signature.SignatureVerifier(r.secret).generate_signature(timestamp=str(r.now), body=r.body)
    r.headers |= {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": str(r.now)}


def stripe_(r):
    signature = stripe.WebhookSignature._compute_signature(f"{r.now}.{r.text}", r.secret)
    r.headers["Stripe-Signature"] = f"t={r.now},v1={signature}"


def box(r):
    r.headers |= {"box-signature-version": "1", "box-signature-algorithm": "HmacSHA256"}
    r.headers["box-delivery-timestamp"] = r.time.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    based("box-signature-primary", lambda r: r.body + r.headers["box-delivery-timestamp"].encode())(r)


def cloudinary_(r):
    cloudinary.config(api_secret=r.secret)
    r.headers["X-Cld-Timestamp"] = str(r.now)
    r.headers["X-Cld-Signature"] = cloudinary.utils.compute_hex_hash(f"{r.text}{r.now}{r.secret}")


def cloudinary_says(r):
    cloudinary.config(api_secret=r.secret)
    return cloudinary.utils.verify_notification_signature(
        r.text, r.headers["X-Cld-Timestamp"], r.headers["X-Cld-Signature"]
    )


def paddle_says(r):
    request = types.SimpleNamespace(headers=r.headers, body=r.body)
    return paddle.Verifier(5).verify(request, [paddle.Secret(r.secret)])


def hubspot_(version, header):
    call = hubspot.utils.signature.Signature

    def sign(r):
        stamp = str(r.now * 1000) if version == "v3" else None
        r.headers[header] = call.get_signature(r.secret, r.text, version, r.url, "POST", stamp)
        if stamp:
            r.headers["X-HubSpot-Request-Timestamp"] = stamp

    def says(r):
        return call.is_valid(
            r.headers[header], r.secret, r.text, r.url, "POST", version, r.headers.get("X-HubSpot-Request-Timestamp")
        )

    return sign, says


def retell_(r):
    r.headers["X-Retell-Signature"] = retell.symmetric["sign"](r.text, r.secret, r.now * 1000)


def sinch_(r):
    r.headers |= {"x-sinch-webhook-signature-nonce": r.ident, "x-sinch-webhook-signature-timestamp": str(r.now)}
    based("x-sinch-webhook-signature", lambda r: f"{r.text}.{r.ident}.{r.now}")(r)


def webflow(r):
    r.headers["x-webflow-timestamp"] = str(r.now * 1000)
    hexed("x-webflow-signature", lambda r: f"{r.now * 1000}:{r.text}")(r)


entry(
    "slack",
    slack,
    lambda r: slack_sdk.signature.SignatureVerifier(r.secret).is_valid_request(r.body, r.headers),
    window=300,
)
entry(
    "stripe",
    stripe_,
    lambda r: stripe.WebhookSignature.verify_header(r.text, r.headers["Stripe-Signature"], r.secret, 300),
    window=300,
)
entry("box", box, lambda r: box_sdk_gen.WebhooksManager.validate_message(r.text, r.headers, r.secret), window=600)
entry(
    "elevenlabs",
    listed("ElevenLabs-Signature", "v0"),
    lambda r: elevenlabs.client.ElevenLabs(api_key="k").webhooks.construct_event(
        r.text, r.headers["ElevenLabs-Signature"], r.secret
    ),
    window=1800,
)
entry("cloudinary", cloudinary_, cloudinary_says, window=7200)
entry("paddle", listed("Paddle-Signature", "h1", ":", "ts", ";"), paddle_says, window=60)
for version, header in [("v1", "X-HubSpot-Signature"), ("v2", "X-HubSpot-Signature"), ("v3", "X-HubSpot-Signature-v3")]:
    entry(f"hubspot-{version}", *hubspot_(version, header), window=300 if version == "v3" else None)
entry(
    "retell",
    retell_,
    lambda r: retell.symmetric["verify"](r.text, r.secret, r.headers["X-Retell-Signature"]),
    window=300,
)
entry(
    "sinch-conversation", sinch_, lambda r: sinch.validate_sinch_event_signature_with_nonce(r.secret, r.headers, r.text)
)
entry("mux", listed("mux-signature"), None, window=300, node=True)
entry("webflow", webflow, None, node=True)
entry("sanity", None, None, node="sanity-webhook-signature")
entry(
    "contentful",
    None,
    None,
    ("c0ffee" * 10 + "abcd", "decade" * 10 + "abcd"),
    window=30,
    node=True,
    kind="application/vnd.contentful.management.v1+json",
)

# A time inside the body.
entry(
    "linear",
    hexed("linear-signature"),
    None,
    bodies=[b'{"id":"%s","action":"a.b","type":"Issue","webhookTimestamp":%t000}'],
    window=60,
    node=True,
)
entry(
    "pusher",
    hexed("X-Pusher-Signature"),
    lambda r: pusher.Pusher(app_id="1", key="key", secret=r.secret).validate_webhook(
        "key", r.headers["X-Pusher-Signature"], r.text
    )
    is not None,
    bodies=[b'{"time_ms":%t000,"events":[{"name":"a.b","channel":"%s"}]}'],
    window=300,
)


# The body alone.
def shopify(r):
    r.headers |= {
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-Shop-Domain": "app.myshopify.com",
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Webhook-Id": r.ident,
    }
    based("X-Shopify-Hmac-Sha256")(r)


entry("github", None, None, node="x-hub-signature-256")
entry(
    "adyen-banking",
    based("HmacSignature", key=bytes.fromhex),
    lambda r: Adyen.util.is_valid_hmac_payload(r.headers["HmacSignature"], r.secret, r.body),
    HEXADECIMAL,
)
entry(
    "airtable",
    hexed("X-Airtable-Content-MAC", prefix="hmac-sha256=", key=base64.b64decode),
    lambda r: airtable.WebhookNotification.from_request(r.text, r.headers["X-Airtable-Content-MAC"], r.secret),
    BASE64,
    bodies=[b'{"base":{"id":"%s"},"webhook":{"id":"a.b"},"timestamp":"2026-01-01T00:00:00.000Z"}'],
)
entry(
    "coinbase-commerce",
    hexed("X-CC-Webhook-Signature"),
    lambda r: coinbase_commerce.webhook.WebhookSignature.verify_sig_header(
        r.text, r.headers["X-CC-Webhook-Signature"], r.secret
    ),
)
entry(
    "gocardless",
    hexed("Webhook-Signature"),
    lambda r: gocardless_pro.webhooks.parse(r.body, r.secret, r.headers["Webhook-Signature"]) is not None,
    bodies=[b'{"events":[{"id":"%s","resource_type":"payments","action":"a.b"}],"meta":{"webhook_id":"%s"}}'],
)
entry(
    "line",
    based("x-line-signature"),
    lambda r: linebot.v3.webhook.SignatureValidator(r.secret).validate(r.text, r.headers["x-line-signature"]),
)
entry(
    "modern-treasury",
    hexed("X-Signature"),
    lambda r: modern_treasury.ModernTreasury(api_key="k", organization_id="o").webhooks.validate_signature(
        r.text, r.headers, key=r.secret
    ),
)
entry(
    "mollie",
    hexed("X-Mollie-Signature", prefix="sha256="),
    lambda r: mollie.SignatureValidator.validate(r.text, r.secret, r.headers["X-Mollie-Signature"]),
)
entry(
    "onfido",
    hexed("X-SHA2-Signature"),
    lambda r: onfido.WebhookEventVerifier(r.secret).read_payload(r.text, r.headers["X-SHA2-Signature"]) is not None,
    bodies=[
        b'{"payload":{"resource_type":"check","action":"check.completed","object":{"id":"%s","status":"complete","completed_at_iso8601":"2026-01-01T00:00:00Z","href":"https://api.onfido.com/"}}}'
    ],
    change=(b"check.completed", b"check.started"),
)
entry(
    "razorpay",
    hexed("X-Razorpay-Signature"),
    lambda r: razorpay.Client(auth=("k", "s")).utility.verify_webhook_signature(
        r.text, r.headers["X-Razorpay-Signature"], r.secret
    ),
)
entry("shopify", shopify, None, node=True)
entry(
    "sinch-numbers",
    hexed("x-sinch-signature", algorithm="sha1"),
    lambda r: sinch.validate_signature_header(r.secret, r.headers, r.text),
)
entry("smartcar", hexed("SC-Signature"), lambda r: smartcar.verify_payload(r.secret, r.headers["SC-Signature"], r.text))
entry(
    "square",
    based("x-square-hmacsha256-signature", lambda r: r.url + r.text),
    lambda r: square.utils.webhooks_helper.verify_signature(
        request_body=r.text,
        signature_header=r.headers["x-square-hmacsha256-signature"],
        signature_key=r.secret,
        notification_url=r.url,
    ),
)
entry(
    "viber",
    hexed("X-Viber-Content-Signature"),
    lambda r: viberbot.api.api.Api(
        viberbot.api.bot_configuration.BotConfiguration(r.secret, "n", "a")
    ).verify_signature(r.body, r.headers["X-Viber-Content-Signature"]),
)


# Parts of the request.
def adyen(r):
    item = json.loads(r.body)["notificationItems"][0]["NotificationRequestItem"]
    r.body = r.body.replace(b"@", Adyen.util.generate_notification_sig(item, r.secret))


def braintree_gateway(r):
    return braintree.BraintreeGateway(
        braintree.Configuration(
            environment=braintree.Environment.Sandbox,
            merchant_id="m",
            public_key="public_key_of_it",
            private_key=r.secret,
        )
    )


def braintree_(r):
    signed = braintree_gateway(r).webhook_testing.sample_notification(braintree.WebhookNotification.Kind.Check, r.ident)
    r.body = urllib.parse.urlencode(signed).encode()


def mailgun_(r):
    r.body = r.body.replace(b"@", digest(r.secret, f"{r.now}{r.ident}").hexdigest().encode())


def mailgun_says(r):
    said = json.loads(r.body)["signature"]
    return mailgun.security.SecurityGuard.verify_webhook(r.secret, said["token"], said["timestamp"], said["signature"])


def mercadopago_(r):
    r.headers["x-request-id"] = r.ident
    signature = digest(r.secret, f"id:123456;request-id:{r.ident};ts:{r.now};").hexdigest()
    r.headers["x-signature"] = f"ts={r.now},v1={signature}"


def mercadopago_says(r):
    r.headers.setdefault("x-request-id", "")
    mercadopago.webhook.WebhookSignatureValidator.validate(
        r.headers["x-signature"], r.headers["x-request-id"], "123456", r.secret
    )


def plivo_(r):
    r.headers["X-Plivo-Signature-V3-Nonce"] = r.ident
    address = plivo.construct_post_url(r.url, r.form).decode()
    r.headers["X-Plivo-Signature-V3"] = plivo.get_signature_v3(
        r.secret.encode(), address.encode(), r.ident.encode()
    ).decode()


def twilio_(r):
    r.headers["X-Twilio-Signature"] = twilio.request_validator.RequestValidator(r.secret).compute_signature(
        r.url, r.form
    )


FORM = "application/x-www-form-urlencoded"
entry(
    "adyen",
    adyen,
    lambda r: Adyen.util.is_valid_hmac_notification(json.loads(r.body), r.secret),
    HEXADECIMAL,
    bodies=[
        b'{"live":"false","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"@"},"amount":{"currency":"EUR","value":1130},"eventCode":"AUTHORISATION","merchantAccountCode":"TestMerchant","merchantReference":"Test: payment","pspReference":"%s","success":"true"}}]}'
    ],
    change=(b"1130", b"1131"),
)
entry(
    "braintree",
    braintree_,
    lambda r: braintree_gateway(r).webhook_notification.parse(r.form["bt_signature"], r.form["bt_payload"]),
    bodies=[b""],
    change=(b"bt_payload=", b"bt_payload=ICAg"),
    values={"public_key": "public_key_of_it"},
    kind=FORM,
)
entry(
    "mailgun",
    mailgun_,
    mailgun_says,
    bodies=[b'{"signature":{"timestamp":"%t","token":"%s","signature":"@"},"event-data":{"event":"opened","id":"%s"}}'],
    change=(b'"token":"', b'"token":"0'),
    window=900,
)
entry(
    "mercadopago", mercadopago_, mercadopago_says, bodies=[BODIES[0]], change=None, query="?data.id=123456&type=payment"
)
entry(
    "plivo-v3",
    plivo_,
    lambda r: plivo.validate_v3_signature(
        "POST", r.url, r.headers["X-Plivo-Signature-V3-Nonce"], r.secret, r.headers["X-Plivo-Signature-V3"], r.form
    ),
    bodies=[b"CallUUID=%s&Event=StartApp&From=1415&To=1555"],
    change=(b"StartApp", b"Hangup"),
    query="?b=2&a=1",
    kind=FORM,
)
entry(
    "twilio",
    twilio_,
    lambda r: twilio.request_validator.RequestValidator(r.secret).validate(
        r.url, r.form, r.headers["X-Twilio-Signature"]
    ),
    bodies=[b"MessageSid=%s&SmsStatus=received&Body=hello+agent%%21&From=%%2B1415".replace(b"%%", b"%")],
    change=(b"received", b"failed"),
    kind=FORM,
)
