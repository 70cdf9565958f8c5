// Looks at a page as its readers have it, and prints what it has seen as JSON. With a folder it leaves pictures there.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [url, state, pictures] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const patience = 300_000; // milliseconds, on a busy machine
const browser = await chromium.launch({
	executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
	timeout: patience,
	// A container's /dev/shm can be too small for it.
	args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});
const seen = [];
let cookies; // of the first one, since an address may work in one browser alone
for (const width of [1280, 390]) {
	for (const colorScheme of ["light", "dark"]) {
		const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, locale: "en-GB", timezoneId: "UTC" });
		if (cookies) await context.addCookies(cookies);
		const page = await context.newPage();
		page.setDefaultTimeout(patience);
		// The page asks again when it is told to, so that it stands still while it is looked at, however long that takes.
		await page.addInitScript(() => {
			const soon = window.setTimeout;
			window.setTimeout = (f, ms, ...args) => ms >= 1000 ? (window.askAgain = f, 0) : soon(f, ms, ...args);
			AbortSignal.timeout = () => new AbortController().signal;
		});
		const errors = [], requests = [];
		page.on("pageerror", (error) => errors.push(String(error)));
		page.on("console", (message) => { if (message.type() === "error" && state !== "gone") errors.push(message.text()); });
		page.on("request", (request) => requests.push(request.url()));
		await page.goto(url);
		await page.waitForFunction(() => document.getElementById("state").textContent !== "One moment");
		if (state === "gone") {
			await page.waitForFunction(() => window.askAgain);
			await page.evaluate(() => { window.askAgain(); });
			await page.waitForSelector("#lost:not(:empty)");
		}
		const look = {
			width, colorScheme, errors, requests,
			...await page.evaluate(() => ({
				state: document.getElementById("state").textContent,
				title: document.title,
				lost: document.getElementById("lost").textContent,
				findings: [...document.querySelectorAll("#findings li > span:first-child")].map((e) => e.textContent),
				links: [...document.querySelectorAll("#findings a")].map((e) => e.href),
				text: document.body.innerText,
				images: document.querySelectorAll("img, iframe, script:not([src])").length,
				wider: document.documentElement.scrollWidth > innerWidth,
			})),
		};
		if (pictures) await page.screenshot({ path: `${pictures}/${state}-${width}-${colorScheme}.png`, fullPage: true });
		if (pictures && state === "idle" && width === 1280 && colorScheme === "light") {
			await page.screenshot({ path: `${pictures}/page.png`, fullPage: true, clip: { x: 0, y: 0, width, height: 1400 } });
		}

		// By the keyboard alone: the chart is reached, and read.
		look.keyboard = "";
		if (await page.locator(".chart").count()) {
			for (let i = 0; i < 40 && !look.keyboard; i++) {
				await page.keyboard.press("Tab");
				if (await page.evaluate(() => document.activeElement.classList.contains("chart"))) {
					await page.keyboard.press("Home");
					await page.keyboard.press("ArrowRight");
					look.keyboard = await page.evaluate(() => document.activeElement.getAttribute("aria-valuetext"));
				}
			}
			await page.locator("input[value=recent]").first().press("Space");
			look.recent = await page.evaluate(() => document.activeElement.value + " " + document.querySelector(".reading").textContent);
		}
		// A page that forbids foreign scripts takes none of axe's, but the debugger is no script of the page.
		const debug = await context.newCDPSession(page);
		await debug.send("Runtime.evaluate", { expression: axe });
		const { result } = await debug.send("Runtime.evaluate", {
			expression: "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((r) => JSON.stringify({violations: r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.target + ' ' + n.failureSummary).join('; ')), passes: r.passes.length}))",
			awaitPromise: true, returnByValue: true,
		});
		look.axe = JSON.parse(result.value);
		seen.push(look);
		cookies = await context.cookies();
		await context.close();
	}
}
await browser.close();
console.log(JSON.stringify(seen));
