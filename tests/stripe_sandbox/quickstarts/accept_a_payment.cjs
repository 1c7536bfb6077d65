// Stripe's quickstart "Accept a payment": a page pays an intent of the server. Only the address is ours.
const api = new URL(process.env.STRIPE_BASE);
const stripe = require('stripe')('sk_test_quickstart', { protocol: 'http', host: api.hostname, port: api.port });
const express = require('express');
const app = express();

app.use(express.json());

// Sum the order here, so that no page can name its own price.
const calculateOrderAmount = (items) => items.reduce((total, item) => total + item.amount, 0);

app.post('/create-payment-intent', async (req, res) => {
  const { items } = req.body;
  const paymentIntent = await stripe.paymentIntents.create({
    amount: calculateOrderAmount(items),
    currency: 'usd',
    automatic_payment_methods: { enabled: true },
  });
  res.send({ clientSecret: paymentIntent.client_secret });
});

app.listen(process.env.PORT, '127.0.0.1');
