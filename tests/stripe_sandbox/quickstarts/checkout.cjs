// Stripe's quickstart "Checkout": a button of the shop leads to Stripe's page. Only the address of the API is ours.
const api = new URL(process.env.STRIPE_BASE);
const stripe = require('stripe')('sk_test_quickstart', { protocol: 'http', host: api.hostname, port: api.port });
const express = require('express');
const app = express();

const YOUR_DOMAIN = 'http://localhost:4242';

app.post('/create-checkout-session', async (req, res) => {
  const session = await stripe.checkout.sessions.create({
    line_items: [{ price: process.env.PRICE_ID, quantity: 1 }],
    mode: 'payment',
    success_url: `${YOUR_DOMAIN}/success.html?session_id={CHECKOUT_SESSION_ID}`,
    cancel_url: `${YOUR_DOMAIN}/cancel.html`,
    automatic_tax: { enabled: true },
  });
  res.redirect(303, session.url);
});

app.get('/session-status', async (req, res) => {
  const session = await stripe.checkout.sessions.retrieve(req.query.session_id);
  res.send({ status: session.status, customer_email: session.customer_details.email });
});

app.listen(process.env.PORT, '127.0.0.1');
