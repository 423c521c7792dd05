"""create audit

The table of plinth's audit trail, and what records changes in it. Its SQL is written out, since a revision outlives the
version that brought it. A revision of yours opts a table in:

    op.execute("SELECT plinth_audit_start('customers', '{iban}')")  # without the values of these columns
    op.execute("SELECT plinth_audit_stop('customers')")

Revision: 8e4b1d6fa903
Revises: c4a7e1d95b38
"""

from alembic import op

revision = "8e4b1d6fa903"
down_revision = "c4a7e1d95b38"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE plinth_audit (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            actor text,
            request_id text,
            table_name text NOT NULL,
            row_id text,
            action text NOT NULL,
            before jsonb,
            after jsonb
        )
    """)
    op.execute("CREATE INDEX plinth_audit_at ON plinth_audit (at)")
    op.execute("CREATE INDEX plinth_audit_row ON plinth_audit (table_name, row_id, id)")
    op.execute("CREATE INDEX plinth_audit_actor ON plinth_audit (actor, id)")
    # The arguments are the columns of the primary key, and those whose values are not recorded. One that is missing was
    # renamed, perhaps: the change is refused, since the values would be recorded under the new name.
    op.execute("""
        CREATE FUNCTION plinth_audit() RETURNS trigger LANGUAGE plpgsql
        SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
        DECLARE
            key CONSTANT text[] := TG_ARGV[0];
            hidden CONSTANT text[] := TG_ARGV[1];
            old_row CONSTANT jsonb := to_jsonb(OLD);
            new_row CONSTANT jsonb := to_jsonb(NEW);
            either CONSTANT jsonb := coalesce(old_row, new_row);
            entry plinth_audit;
        BEGIN
            IF NOT either ?& (key || hidden) THEN
                RAISE 'A column of % that the audit trail needs has another name. Call plinth_audit_start again.', TG_TABLE_NAME;
            END IF;
            SELECT jsonb_object_agg(name, CASE WHEN name = ANY (hidden) THEN '"[not recorded]"' ELSE old_row -> name END),
                jsonb_object_agg(name, CASE WHEN name = ANY (hidden) THEN '"[not recorded]"' ELSE new_row -> name END)
            INTO entry.before, entry.after
            FROM jsonb_object_keys(either) AS name
            WHERE old_row -> name IS DISTINCT FROM new_row -> name;
            IF TG_OP = 'UPDATE' AND entry.after IS NULL THEN
                RETURN NULL;  -- nothing has changed
            END IF;
            entry.row_id := CASE cardinality(key)
                WHEN 0 THEN NULL
                WHEN 1 THEN either ->> key[1]
                ELSE (SELECT jsonb_agg(either -> key[i] ORDER BY i)::text FROM generate_subscripts(key, 1) AS i)
            END;
            INSERT INTO plinth_audit (actor, request_id, table_name, row_id, action, before, after) VALUES (
                nullif(current_setting('plinth.actor', true), ''), nullif(current_setting('plinth.request_id', true), ''),
                TG_TABLE_NAME, entry.row_id, lower(TG_OP),
                CASE WHEN TG_OP <> 'INSERT' THEN entry.before END, CASE WHEN TG_OP <> 'DELETE' THEN entry.after END
            );
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION plinth_audit_start(audited regclass, without text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            key CONSTANT text[] := coalesce((
                SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum))
                FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
                WHERE indrelid = audited AND indisprimary
            ), '{}');
            columns CONSTANT text[] := ARRAY(
                SELECT attname::text FROM pg_attribute WHERE attrelid = audited AND attnum > 0 AND NOT attisdropped
            );
        BEGIN
            IF NOT without <@ columns OR without && key THEN
                RAISE 'Of %, columns can be left out that exist and are no part of the primary key.', audited;
            END IF;
            EXECUTE format('CREATE OR REPLACE TRIGGER plinth_audit AFTER INSERT OR UPDATE OR DELETE ON %s
                FOR EACH ROW EXECUTE FUNCTION plinth_audit(%L, %L)', audited, key, without);
            EXECUTE format('CREATE OR REPLACE TRIGGER plinth_audit_truncate AFTER TRUNCATE ON %s
                FOR EACH STATEMENT EXECUTE FUNCTION plinth_audit(%L, %L)', audited, '{}', '{}');
        END $$
    """)
    op.execute("""
        CREATE FUNCTION plinth_audit_stop(audited regclass) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE format('DROP TRIGGER plinth_audit ON %s', audited);
            EXECUTE format('DROP TRIGGER plinth_audit_truncate ON %s', audited);
        END $$
    """)


def downgrade() -> None:
    op.execute("DROP FUNCTION plinth_audit_stop, plinth_audit_start, plinth_audit")
    op.execute("DROP TABLE plinth_audit")
