// Stripe's quickstart "Subscriptions" with a free trial: Checkout and the portal. Only the address is ours.
const api = new URL(process.env.STRIPE_BASE);
const stripe = require('stripe')('sk_test_quickstart', { protocol: 'http', host: api.hostname, port: api.port });
const express = require('express');
const app = express();
app.use(express.json());

const YOUR_DOMAIN = 'http://localhost:4242';

app.post('/create-checkout-session', async (req, res) => {
  const prices = await stripe.prices.list({ lookup_keys: [req.body.lookup_key], expand: ['data.product'] });
  const session = await stripe.checkout.sessions.create({
    line_items: [{ price: prices.data[0].id, quantity: 1 }],
    mode: 'subscription',
    payment_method_collection: 'if_required',
    subscription_data: {
      trial_period_days: 30,
      trial_settings: { end_behavior: { missing_payment_method: 'cancel' } },
    },
    success_url: `${YOUR_DOMAIN}/success.html?session_id={CHECKOUT_SESSION_ID}`,
    cancel_url: `${YOUR_DOMAIN}/cancel.html`,
  });
  res.redirect(303, session.url);
});

app.post('/create-portal-session', async (req, res) => {
  const session = await stripe.checkout.sessions.retrieve(req.body.session_id);
  const portal = await stripe.billingPortal.sessions.create({ customer: session.customer, return_url: YOUR_DOMAIN });
  res.redirect(303, portal.url);
});

app.listen(process.env.PORT, '127.0.0.1');
