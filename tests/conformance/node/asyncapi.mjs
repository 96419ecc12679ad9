// Holds an AsyncAPI 3.0 document against the schema that the AsyncAPI project publishes.
// Usage: node asyncapi.mjs FILE; prints each fault, and fails when there is one.
import { readFileSync } from "node:fs";
import specs from "@asyncapi/specs";
import Ajv from "ajv";

const ajv = new Ajv({ allErrors: true, strict: false, unicodeRegExp: false, validateFormats: false });
const validate = ajv.compile(specs.schemasWithoutId["3.0.0"]);
const valid = validate(JSON.parse(readFileSync(process.argv[2])));
for (const { instancePath, message } of validate.errors ?? []) console.error(instancePath, message);
process.exit(valid ? 0 : 1);
