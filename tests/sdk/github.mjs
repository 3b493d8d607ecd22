// Signs the text on standard input as GitHub does, with GitHub's own library; prints the header's value.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const from = createRequire(pathToFileURL(`${process.cwd()}/target/sdk/package.json`));
const { sign } = await import(pathToFileURL(from.resolve("@octokit/webhooks-methods")));
let body = "";
for await (const piece of process.stdin) body += piece;
process.stdout.write(await sign(process.argv[2], body));
