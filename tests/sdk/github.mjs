// Signs the text on standard input as GitHub does, with GitHub's own library; prints the header's value. Runs from the
// folder that the library was installed into.
import { sign } from "@octokit/webhooks-methods";

let body = "";
for await (const piece of process.stdin) body += piece;
process.stdout.write(await sign(process.argv[2], body));
