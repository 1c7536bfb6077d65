// Stripe's guide "Usage-based billing": a meter, a price, a subscription, a stream of usage. Only the address is ours.
const api = new URL(process.env.STRIPE_BASE);
const Stripe = require('stripe');
const address = { protocol: 'http', host: api.hostname, port: api.port };
const stripe = Stripe('sk_test_quickstart', address);
const express = require('express');
const app = express();
app.use(express.json());

app.post('/create-subscription', async (req, res) => {
  const meter = await stripe.billing.meters.create({
    display_name: 'Tokens',
    event_name: req.body.event_name,
    default_aggregation: { formula: 'sum' },
    customer_mapping: { event_payload_key: 'stripe_customer_id', type: 'by_id' },
    value_settings: { event_payload_key: 'value' },
  });
  const price = await stripe.prices.create({
    currency: 'usd',
    unit_amount: 4,
    billing_scheme: 'per_unit',
    recurring: { usage_type: 'metered', interval: 'month', meter: meter.id },
    product_data: { name: 'Tokens' },
  });
  const customer = await stripe.customers.create({ name: 'Jenny Rosen', email: 'jenny@example.com' });
  const subscription = await stripe.subscriptions.create({ customer: customer.id, items: [{ price: price.id }] });
  res.send({ customer: customer.id, subscription: subscription.id });
});

app.post('/record-usage', async (req, res) => {
  const session = await stripe.v2.billing.meterEventSession.create();
  const sender = Stripe(session.authentication_token, address);
  const payload = { stripe_customer_id: req.body.customer, value: '25' };
  await sender.v2.billing.meterEventStream.create({
    events: Array(4).fill({ event_name: req.body.event_name, payload }),
  });
  res.send({ status: 'success' });
});

app.get('/upcoming-invoice', async (req, res) => {
  const invoice = await stripe.invoices.createPreview({ subscription: req.query.subscription });
  res.send({ total: invoice.total });
});

app.listen(process.env.PORT, '127.0.0.1');
