// Stripe's guide "Save and reuse": a card is set up, and charged later. Only the address is ours.
const api = new URL(process.env.STRIPE_BASE);
const stripe = require('stripe')('sk_test_quickstart', { protocol: 'http', host: api.hostname, port: api.port });
const express = require('express');
const app = express();

app.use(express.json());

app.post('/create-setup-intent', async (req, res) => {
  const customer = await stripe.customers.create();
  const setupIntent = await stripe.setupIntents.create({
    customer: customer.id,
    automatic_payment_methods: { enabled: true },
  });
  res.send({ customer: customer.id, clientSecret: setupIntent.client_secret });
});

app.post('/charge', async (req, res) => {
  const { customer } = req.body;
  const paymentMethods = await stripe.paymentMethods.list({ customer, type: 'card' });
  try {
    const paymentIntent = await stripe.paymentIntents.create({
      amount: 1099,
      currency: 'usd',
      automatic_payment_methods: { enabled: true },
      customer,
      payment_method: paymentMethods.data[0].id,
      return_url: 'https://example.com/order/123/complete',
      off_session: true,
      confirm: true,
    });
    res.send({ status: paymentIntent.status });
  } catch (err) {
    res.status(402).send({ code: err.code });
  }
});

app.listen(process.env.PORT, '127.0.0.1');
