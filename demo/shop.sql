-- A small shop, and a procedure that lets something happen in it: an order is placed, paid, shipped or cancelled, a
-- customer changes the address, goods arrive. `scripts/demo` calls it a few times a second.

CREATE TYPE order_status AS ENUM ('placed', 'paid', 'shipped', 'delivered');

CREATE TABLE customers (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text NOT NULL,
    email   text NOT NULL,
    city    text,
    since   date NOT NULL DEFAULT current_date
);

CREATE TABLE products (
    sku        text PRIMARY KEY,
    name       text NOT NULL,
    price      numeric(10, 2) NOT NULL,
    stock      integer NOT NULL,
    tags       text[] NOT NULL DEFAULT '{}',
    attributes jsonb
);

CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    status      order_status NOT NULL DEFAULT 'placed',
    total       numeric(12, 2) NOT NULL,
    gift        boolean NOT NULL DEFAULT false,
    placed_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE order_items (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    line     smallint NOT NULL,
    sku      text NOT NULL REFERENCES products,
    quantity integer NOT NULL,
    price    numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

INSERT INTO customers (name, email, city) VALUES
    ('Ada Byron', 'ada@example.com', 'London'),
    ('Søren Aabye', 'soren@example.com', 'København'),
    ('Zoë Ångström', 'zoe@example.com', NULL),
    ('Li Wei', 'li@example.com', '北京'),
    ('Grace Murray', 'grace@example.com', 'New York');

INSERT INTO products (sku, name, price, stock, tags, attributes) VALUES
    ('TEA-1', 'Green tea', 6.90, 500, '{tea,organic}', '{"grams": 100, "origin": "Uji"}'),
    ('TEA-2', 'Black tea', 5.40, 500, '{tea}', '{"grams": 125}'),
    ('CUP-1', 'Cup', 12.00, 200, '{}', NULL),
    ('POT-1', 'Tea pot', 48.50, 60, '{gift}', '{"litres": 1.2, "colours": ["red", "black"]}'),
    ('BOX-1', 'Gift box', 3.25, 900, '{gift}', NULL);

CREATE PROCEDURE something_happens() LANGUAGE plpgsql AS $$
DECLARE
    dice    float := random();
    picked  bigint;
BEGIN
    IF dice < 0.45 THEN
        INSERT INTO orders (customer_id, total, gift)
            SELECT id, 0, random() < 0.2 FROM customers ORDER BY random() LIMIT 1
            RETURNING id INTO picked;
        INSERT INTO order_items
            SELECT picked, row_number() OVER (), sku, 1 + floor(random() * 3)::int, price
            FROM (SELECT * FROM products ORDER BY random() LIMIT 1 + floor(random() * 3)::int) AS basket;
        UPDATE products SET stock = stock - quantity FROM order_items i WHERE i.order_id = picked AND i.sku = products.sku;
        UPDATE orders SET total = (SELECT sum(quantity * price) FROM order_items WHERE order_id = picked) WHERE id = picked;
    ELSIF dice < 0.80 THEN
        UPDATE orders SET status = (enum_range(status, NULL))[2]
            WHERE id = (SELECT id FROM orders WHERE status <> 'delivered' ORDER BY random() LIMIT 1);
    ELSIF dice < 0.87 THEN
        DELETE FROM orders WHERE id = (SELECT id FROM orders WHERE status = 'placed' ORDER BY random() LIMIT 1);
    ELSIF dice < 0.94 THEN
        UPDATE customers SET city = (ARRAY['Oslo', 'Wien', 'Lima', NULL])[1 + floor(random() * 4)::int]
            WHERE id = (SELECT id FROM customers ORDER BY random() LIMIT 1);
    ELSE
        UPDATE products SET stock = stock + 100 WHERE sku = (SELECT sku FROM products ORDER BY stock LIMIT 1);
    END IF;
END $$;
