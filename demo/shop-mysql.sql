-- The shop of shop.sql for MySQL and MariaDB: the same tables, and the same things that happen in it. An order and what it
-- does to the stock is one transaction, everything else is one statement. `CALL open_shop(0.3)` goes on until it is stopped.

CREATE TABLE customers (
    id      bigint AUTO_INCREMENT PRIMARY KEY,
    name    varchar(100) NOT NULL,
    email   varchar(200) NOT NULL,
    city    varchar(100),
    since   date NOT NULL
) CHARACTER SET utf8mb4;

CREATE TABLE products (
    sku        varchar(20) PRIMARY KEY,
    name       varchar(100) NOT NULL,
    price      decimal(10, 2) NOT NULL,
    stock      int NOT NULL,
    tags       json NOT NULL,
    attributes json
) CHARACTER SET utf8mb4;

CREATE TABLE orders (
    id          bigint AUTO_INCREMENT PRIMARY KEY,
    customer_id bigint NOT NULL,
    status      enum ('placed', 'paid', 'shipped', 'delivered') NOT NULL DEFAULT 'placed',
    total       decimal(12, 2) NOT NULL,
    gift        boolean NOT NULL DEFAULT false,
    placed_at   timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    FOREIGN KEY (customer_id) REFERENCES customers (id)
) CHARACTER SET utf8mb4;

CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line     smallint NOT NULL,
    sku      varchar(20) NOT NULL,
    quantity int NOT NULL,
    price    decimal(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line),
    FOREIGN KEY (order_id) REFERENCES orders (id),
    FOREIGN KEY (sku) REFERENCES products (sku)
) CHARACTER SET utf8mb4;

INSERT INTO customers (name, email, city, since) VALUES
    ('Ada Byron', 'ada@example.com', 'London', CURRENT_DATE),
    ('Søren Aabye', 'soren@example.com', 'København', CURRENT_DATE),
    ('Zoë Ångström', 'zoe@example.com', NULL, CURRENT_DATE),
    ('Li Wei', 'li@example.com', '北京', CURRENT_DATE),
    ('Grace Murray', 'grace@example.com', 'New York', CURRENT_DATE);

INSERT INTO products (sku, name, price, stock, tags, attributes) VALUES
    ('TEA-1', 'Green tea', 6.90, 500, '["tea", "organic"]', '{"grams": 100, "origin": "Uji"}'),
    ('TEA-2', 'Black tea', 5.40, 500, '["tea"]', '{"grams": 125}'),
    ('CUP-1', 'Cup', 12.00, 200, '[]', NULL),
    ('POT-1', 'Tea pot', 48.50, 60, '["gift"]', '{"litres": 1.2, "colours": ["red", "black"]}'),
    ('BOX-1', 'Gift box', 3.25, 900, '["gift"]', NULL);

DELIMITER //

CREATE PROCEDURE something_happens() MODIFIES SQL DATA
BEGIN
    DECLARE dice double DEFAULT rand();
    DECLARE picked bigint;
    DECLARE wanted int DEFAULT 1 + floor(rand() * 3);
    IF dice < 0.45 THEN
        START TRANSACTION;
        INSERT INTO orders (customer_id, total, gift)
            SELECT id, 0, rand() < 0.2 FROM customers ORDER BY rand() LIMIT 1;
        SET picked = last_insert_id();
        INSERT INTO order_items
            SELECT picked, row_number() OVER (), sku, 1 + floor(rand() * 3), price
            FROM (SELECT sku, price FROM products ORDER BY rand() LIMIT wanted) AS basket;
        UPDATE products JOIN order_items i ON i.sku = products.sku SET stock = stock - quantity WHERE i.order_id = picked;
        UPDATE orders SET total = (SELECT sum(quantity * price) FROM order_items WHERE order_id = picked) WHERE id = picked;
        COMMIT;
    ELSEIF dice < 0.80 THEN
        SELECT max(id) INTO picked FROM (SELECT id FROM orders WHERE status <> 'delivered' ORDER BY rand() LIMIT 1) AS any_of_them;
        UPDATE orders SET status = status + 1 WHERE id = picked;
    ELSEIF dice < 0.87 THEN
        SELECT max(id) INTO picked FROM (SELECT id FROM orders WHERE status = 'placed' ORDER BY rand() LIMIT 1) AS any_of_them;
        -- In two steps: rows that a foreign key deletes by itself are not in the log of every server.
        START TRANSACTION;
        DELETE FROM order_items WHERE order_id = picked;
        DELETE FROM orders WHERE id = picked;
        COMMIT;
    ELSEIF dice < 0.94 THEN
        SELECT id INTO picked FROM customers ORDER BY rand() LIMIT 1;
        UPDATE customers SET city = elt(1 + floor(rand() * 4), 'Oslo', 'Wien', 'Lima', NULL) WHERE id = picked;
    ELSE
        UPDATE products SET stock = stock + 100 ORDER BY stock LIMIT 1;
    END IF;
END //

CREATE PROCEDURE open_shop(pause double) MODIFIES SQL DATA
BEGIN
    LOOP
        CALL something_happens();
        DO sleep(pause);
    END LOOP;
END //

DELIMITER ;
