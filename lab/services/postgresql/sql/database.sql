CREATE DATABASE :"name" TEMPLATE template0 OWNER app ENCODING :'encoding'
  LC_COLLATE :'locale' LC_CTYPE :'locale' TABLESPACE :"tablespace";
