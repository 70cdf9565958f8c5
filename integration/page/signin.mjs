// Signs in at a page as a listener does, and prints what the page says then.
//
//	node signin.mjs <address> <code> <user name> <password> [<folder for pictures>]
//
// It types what the page asks for, and finds it as a screen reader would. It gives up where the page shows another code.
import { chromium } from "playwright-core";

const [url, code, username, password, pictures] = process.argv.slice(2);
const patience = 300_000; // milliseconds, on a busy machine
const browser = await chromium.launch({
	executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
	timeout: patience,
	args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});
const page = await browser.newPage({ viewport: { width: 390, height: 844 }, locale: "en-GB" });
page.setDefaultTimeout(patience);
await page.goto(url);
const shown = await page.getByLabel("Code").inputValue();
if (shown !== code) {
	throw new Error(`the page shows the code ${shown}, and the app ${code}`);
}
if (pictures) await page.screenshot({ path: `${pictures}/sign-in.png` });
await page.getByLabel("User name").fill(username);
await page.getByLabel("Password").fill(password);
await page.getByRole("button", { name: "Sign in" }).click();
const said = page.getByRole("status").or(page.getByRole("alert"));
await said.waitFor();
console.log(await said.textContent());
if (pictures) await page.screenshot({ path: `${pictures}/signed-in.png` });
await browser.close();
