-- Create a role for the service that can use the tables but not alter them. The role that runs migrations owns them.
-- Run with psql 14 or newer, in the service's database, as a role that may create roles:
--     POSTGRES_PASSWORD=… psql -v service=stocks_service -v owner=stocks -f docker/roles.sql stocks
-- The owner defaults to the current user. Running it again has no further effect.
\set ON_ERROR_STOP on
\if :{?service}
\else
    \set service stocks_service
\endif
\if :{?owner}
\else
    SELECT current_user AS owner \gset
\endif
\getenv password POSTGRES_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', :'service')
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'service') \gexec
\if :{?password}
    ALTER ROLE :"service" PASSWORD :'password';
\endif

SELECT current_database() AS database \gset
GRANT CONNECT ON DATABASE :"database" TO :"service";
-- The service could shadow a table by a temporary one or by an object in the schema.
REVOKE TEMPORARY ON DATABASE :"database" FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO :"service";

-- Existing tables, and those that migrations will create.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"service";
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO :"service";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"service";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO :"service";
