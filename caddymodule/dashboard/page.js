// All text comes into the page as text: nothing of what Caddy says is read as HTML.

const every = 5000; // milliseconds
const groups = [
	["served", "served"],
	["moving", "on the way"],
	["sign_in", "have to sign in"],
	["wait", "asked to try again later"],
];
const $ = (id) => document.getElementById(id);

// make returns an element, with properties by name and children that are elements or text.
function make(name, attributes = {}, ...children) {
	const e = document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) {
		if (value !== undefined) e.setAttribute(key, value);
	}
	e.append(...children.flat().filter((c) => c !== undefined && c !== null));
	return e;
}

function draw(name, attributes) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", name);
	for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
	return e;
}

// breakable is a URL whose lines may end after its slashes.
const breakable = (url) => url.split(/(?<=[/.])/).flatMap((part) => [part, document.createElement("wbr")]);

const number = (n) => Math.round(n).toLocaleString("en");
const clock = (date, seconds) => date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined });
const date = (at) => at.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
const plural = (n, one, many) => number(n) + " " + (n === 1 ? one : many);

const brief = (seconds) => seconds < 1 ? (seconds * 1000).toPrecision(2) / 1 + " ms" : seconds.toPrecision(2) / 1 + " s";

function lasting(seconds) {
	if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s";
	if (seconds < 90 * 60) return Math.round(seconds / 60) + " min";
	if (seconds < 36 * 3600) return Math.round(seconds / 3600) + " h";
	return Math.round(seconds / 86400) + " days";
}

// chosen is what the reader has chosen, by endpoint, while all is drawn anew.
const chosen = new Map();
const keyOf = (e) => e.endpoint + " " + e.client_id;

// --- the chart

// series are the steps of a range: when each begins, and its outcomes.
function series(e, at, range) {
	if (range === "day") {
		const begins = new Date(e.day.begins).getTime(), step = e.day.step_seconds * 1000;
		const steps = [];
		for (let i = 0; i < 144; i++) {
			const counts = {};
			for (const [outcome, of] of Object.entries(e.day.counts)) if (of[i]) counts[outcome] = of[i];
			steps.push({ at: new Date(begins + i * step), counts });
		}
		return { steps, step, label: "each 10 minutes" };
	}
	const step = 10000, last = Math.floor(at.getTime() / step) * step;
	return {
		steps: e.history.map((counts, i) => ({ at: new Date(last - (e.history.length - 1 - i) * step), counts })),
		step, label: "each 10 seconds",
	};
}

function grouped(counts, groupOf) {
	const sums = {};
	for (const [outcome, n] of Object.entries(counts)) {
		const g = groupOf[outcome];
		if (g) sums[g] = (sums[g] || 0) + n;
	}
	return sums;
}

// ceiling is a round number of at least n.
function ceiling(n) {
	if (n <= 10) return 2 * Math.max(2, Math.ceil(n / 2));
	const power = 10 ** Math.floor(Math.log10(n));
	return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((f) => f * power).find((c) => c >= n);
}

function spoken(step, range, groupOf) {
	const sums = grouped(step.counts, groupOf);
	const said = groups.filter(([g]) => sums[g]).map(([g, name]) => number(sums[g]) + " " + name);
	return clock(step.at, range !== "day") + ": " + (said.join(", ") || "no calls");
}

function chart(e, at, groupOf) {
	const choice = chosen.get(keyOf(e)) || { range: "day", slot: -1 };
	chosen.set(keyOf(e), choice);
	const id = "chart-" + [...chosen.keys()].indexOf(keyOf(e));
	const box = make("div", { class: "outcomes" });
	const head = make("div", { class: "charthead" }, make("h3", { id: id + "-title" }, "What calls got"));
	const ranges = make("fieldset", { class: "ranges" }, make("legend", { class: "unseen" }, "Over which time"));
	for (const [value, name] of [["day", "24 hours"], ["recent", "5 minutes"]]) {
		const input = make("input", { type: "radio", name: id, value, id: id + "-" + value });
		input.checked = choice.range === value;
		input.addEventListener("change", () => {
			choice.range = value;
			choice.slot = -1;
			const again = chart(e, at, groupOf);
			box.replaceWith(again);
			again.querySelector("input:checked").focus();
		});
		ranges.append(make("label", {}, input, make("span", {}, name)));
	}
	head.append(ranges);

	const { steps, step, label } = series(e, at, choice.range);
	const sums = steps.map((s) => grouped(s.counts, groupOf));
	const totals = {};
	let most = 0;
	for (const s of sums) {
		let all = 0;
		for (const [g] of groups) {
			totals[g] = (totals[g] || 0) + (s[g] || 0);
			all += s[g] || 0;
		}
		most = Math.max(most, all);
	}
	const width = 760, height = 260, left = 44, bottom = 22, top = 8;
	const plot = height - bottom - top, slot = (width - left) / steps.length, high = ceiling(most);
	const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
	const y = (n) => top + plot * (1 - n / high);
	for (const share of [0.5, 1]) {
		svg.append(draw("line", { class: "rule", x1: left, x2: width, y1: y(high * share), y2: y(high * share) }));
	}
	const marker = draw("rect", { class: "at", x: 0, y: top, width: slot, height: plot, visibility: "hidden" });
	svg.append(marker);
	sums.forEach((s, i) => {
		let up = 0;
		for (const [g] of groups) {
			if (!s[g]) continue;
			const tall = Math.max(s[g] / high * plot, 1);
			svg.append(draw("rect", {
				class: g, x: (left + i * slot + slot * .08).toFixed(2), width: (slot * .84).toFixed(2),
				y: (top + plot - up - tall).toFixed(2), height: tall.toFixed(2),
			}));
			up += tall;
		}
	});
	svg.append(draw("line", { class: "rule base", x1: left, x2: width, y1: y(0), y2: y(0) }));

	const inner = make("div", {
		class: "chart", id, role: "slider", tabindex: "0", "aria-labelledby": id + "-title",
		"aria-valuemin": 0, "aria-valuemax": steps.length - 1, "aria-orientation": "horizontal", "aria-describedby": id + "-reading",
	}, svg);
	const reading = make("p", { class: "reading", id: id + "-reading" });
	const rest = most === 0 ? "No calls in this time." : "Calls, " + label + ", without those that are forwarded. Point at it, or move through it by the arrow keys.";
	const show = (i) => {
		choice.slot = i;
		const on = i >= 0 && i < steps.length;
		inner.setAttribute("aria-valuenow", on ? i : steps.length - 1);
		inner.setAttribute("aria-valuetext", spoken(steps[on ? i : steps.length - 1], choice.range, groupOf));
		marker.setAttribute("visibility", on ? "visible" : "hidden");
		marker.setAttribute("x", left + i * slot);
		reading.textContent = on ? spoken(steps[i], choice.range, groupOf) : rest;
	};
	inner.addEventListener("pointermove", (event) => {
		const area = svg.getBoundingClientRect();
		const x = (event.clientX - area.left) / area.width * width;
		show(x < left ? -1 : Math.min(steps.length - 1, Math.floor((x - left) / slot)));
	});
	inner.addEventListener("pointerleave", () => show(-1));
	inner.addEventListener("blur", () => show(-1));
	inner.addEventListener("keydown", (event) => {
		const from = choice.slot < 0 ? steps.length - 1 : choice.slot;
		const to = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, PageDown: from - 6, PageUp: from + 6, Home: 0, End: steps.length - 1 }[event.key];
		if (to === undefined) return;
		event.preventDefault();
		show(Math.min(steps.length - 1, Math.max(0, to)));
	});
	show(choice.slot);

	axes(inner, high, steps, step, choice.range);
	const legend = make("ul", { class: "legend" }, groups.map(([g, name]) =>
		make("li", {}, make("span", { class: "swatch " + g, "aria-hidden": "true" }), make("b", {}, number(totals[g] || 0)), " " + name)));
	box.append(head, inner, legend, reading);
	return box;
}

// axes puts the numbers of the axes over the chart, which is stretched.
function axes(inner, high, steps, step, range) {
	const place = (text, css) => {
		const e = make("span", { class: "axis", "aria-hidden": "true" }, text);
		Object.assign(e.style, css);
		inner.append(e);
	};
	const top = 8, plot = 230;
	for (const share of [0, .5, 1]) {
		place(number(high * share), { top: top + plot * (1 - share) - 8 + "px", left: "0", width: "5%", textAlign: "right" });
	}
	const marks = range === "day" ? 6 * 3600e3 : 60e3;
	steps.forEach((s, i) => {
		const offset = range === "day" ? s.at.getTimezoneOffset() * 60e3 : 0;
		if ((s.at.getTime() - offset) % marks >= step || i < steps.length * .04 || i > steps.length * .97) return;
		place(clock(s.at), { top: top + plot + 4 + "px", left: (44 + (i + .5) * (716 / steps.length)) / 7.6 + "%", transform: "translateX(-50%)" });
	});
}

// --- the rest of an endpoint

// inVaults is how the records of an endpoint's vaults came, undefined where it has none or not all were counted yet.
function inVaults(e, vaults) {
	const its = vaults.filter((v) => (e.vaults || []).includes(v.key_file));
	if (!its.length || its.some((v) => !v.came)) return undefined;
	const sum = (of) => its.reduce((n, v) => n + v.came[of], 0);
	return { upgraded: sum("upgraded"), signed_in: sum("signed_in"), taken_in: sum("taken_in"), about: its.some((v) => v.came.about) };
}

function figures(e, vaults) {
	const a = e.accounts, kept = inVaults(e, vaults);
	const figure = (n, name, exact) => make("div", {},
		make("dt", {}, name),
		make("dd", { class: n ? undefined : "zero" }, n && !exact ? make("span", { class: "about", title: "about" }, make("span", { "aria-hidden": "true" }, "≈"), make("span", { class: "unseen" }, "about ")) : null, number(n)));
	const said = kept
		? ["Upgraded and signed in are records of the vault, one for each account of a home, as counted within the last day. ",
			kept.taken_in ? "It has " + plural(kept.taken_in, "more that was", "more that were") + " upgraded before there was a vault. " : "",
			"By estimate there are about " + number(a.upgraded) + " and " + number(a.signed_in) + " now. ",
			"Refused and doubted are estimates of distinct accounts, within about 2 percent, and may hold accounts that strangers have made up. "]
		: ["Estimates of distinct accounts, within about 2 percent; one may be in several. Refused and doubted may hold accounts that strangers have made up, the others are by the authorization server's word. ",
			e.vaults ? "The records of the vault are shown when all of them are counted, which takes a day. " : ""];
	if (e.anybody_is_upgraded) said.push("With exchange anonymous nobody proves who they are: anybody can make up homes, and those upgraded are what callers claim.");
	return make("div", { class: "wide" },
		make("h3", {}, "How far the migration is"),
		make("dl", { class: "figures" },
			figure(kept ? kept.upgraded : a.upgraded, "accounts upgraded", kept && !kept.about),
			figure(kept ? kept.signed_in : a.signed_in, "homes signed in", kept && !kept.about),
			figure(a.refused, "accounts refused"), figure(a.doubted, "refusals doubted")),
		make("p", { class: "note" }, said));
}

const breakers = {
	"closed": ["good", "closed", "the token endpoint is asked"],
	"open": ["bad", "open", "the token endpoint is left alone"],
	"half-open": ["warn", "half-open", "the token endpoint is tried"],
};

function facts(e, at) {
	const list = make("dl", { class: "facts" });
	const fact = (name, ...values) => list.append(make("div", {}, make("dt", {}, name),
		values.map(([kind, text, small]) => make("dd", { class: kind || undefined }, text, small ? make("small", {}, small) : null))));
	const x = e.exchanges;
	fact("Exchanges", ["", number(e.in_flight) + " in flight", x && number(x.exchanges) + " in 5 minutes: median " + brief(x.median_seconds) +
		", 95 % within " + brief(x.p95_seconds) + ", longest " + brief(x.longest_seconds)]);
	fact("Queue", e.waiting ? [e.oldest_waiting_seconds >= 5 ? "warn" : "", number(e.waiting) + " waiting", "the oldest for " + lasting(e.oldest_waiting_seconds)] : ["", "nobody waits"]);
	fact("Breaker", breakers[e.breaker] || ["", e.breaker]);
	fact("Hold", e.hold_seconds > 0 ? ["warn", "for " + lasting(e.hold_seconds) + " more", "the token endpoint has asked to wait"] : ["", "none"]);
	const fuses = [["upgrades", e.login_fuse], ["refreshes", e.refresh_fuse], ["old service", e.old_service && e.old_service.fuse]].filter(([, f]) => f);
	fact("Fuse", ...fuses.map(([of, f]) => {
		const tries = f.tried ? number(f.rejected) + " of " + number(f.tried) + " accounts refused" : "";
		return f.blown ? ["bad", "blown for " + of, tries ? "since then " + tries : "refusals are doubted"] : ["", "whole for " + of, tries];
	}));
	if (e.old_service) fact("Sessions", ["", plural(e.old_service.sessions, "account", "accounts"), "known at the old service"]);
	const secrets = e.secrets.map((s) => {
		const name = s.field === "transport" ? "client certificate" : s.field;
		const read = "read " + lasting(s.read_seconds_ago) + " ago";
		if (s.stale) return ["bad", name, "its file cannot be read any more; " + read];
		if (!s.expires) return ["", name, read];
		const ends = new Date(s.expires), left = (ends - at) / 1000;
		return [left < 14 * 86400 ? "bad" : "", name, (left < 0 ? "ended " + lasting(-left) + " ago" : "ends in " + lasting(left)) + ", " + read];
	});
	if (secrets.length) fact("Secrets", ...secrets);
	if (e.server_certificate_ends) {
		const left = (new Date(e.server_certificate_ends) - at) / 1000;
		fact("TLS", [left < 14 * 86400 ? "bad" : "", left < 0 ? "ended " + lasting(-left) + " ago" : "ends in " + lasting(left), "the token endpoint's certificate"]);
	}
	return make("div", { class: "facts-of" }, make("h3", {}, "The token endpoint now"), list);
}

function outcomes(e, legend) {
	const day = (name) => (e.day.counts[name] || []).reduce((sum, n) => sum + n, 0);
	const rows = legend.filter((o) => e.since_start[o.name] || day(o.name));
	if (!rows.length) return null;
	return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Outcomes" }, make("table", {},
		make("caption", {}, "Outcomes"),
		make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "what happened"), make("th", { scope: "col", class: "number" }, "5 min"),
			make("th", { scope: "col", class: "number" }, "24 h"), make("th", { scope: "col", class: "number" }, "in all"), make("th", { scope: "col", class: "what" }, "the player gets"))),
		make("tbody", {}, rows.map((o) => make("tr", {},
			make("th", { scope: "row", class: "code" }, make("span", { class: "swatch " + o.group, "aria-hidden": "true" }), o.name),
			make("td", { class: "number" + (e.last_5_minutes[o.name] ? "" : " quiet") }, number(e.last_5_minutes[o.name] || 0)),
			make("td", { class: "number" }, number(day(o.name))),
			make("td", { class: "number" }, number(e.since_start[o.name] || 0)),
			make("td", { class: "quiet what" }, o.gets.replaceAll("`", "")))))),
		make("p", { class: "note" }, "In all: since " + date(new Date(e.since)) + "."));
}

function faults(e) {
	if (!e.faults.length) return null;
	return make("div", { class: "wide faults-of" }, make("table", { class: "faults" },
		make("caption", {}, "Last faults"),
		make("thead", {}, make("tr", {}, ["when", "outcome", "method", "why", "reference"].map((h) => make("th", { scope: "col", class: h === "method" ? "what" : undefined }, h)))),
		make("tbody", {}, e.faults.slice(0, 10).map((f) => make("tr", {},
			make("td", { class: "quiet" }, clock(new Date(f.at), true)),
			make("td", { class: "code" }, f.outcome),
			make("td", { class: "code quiet what" }, f.method),
			make("td", { class: "says" }, f.cause || "the token endpoint refused the credentials", f.fix ? make("span", { class: "fix" }, f.fix) : null),
			make("td", { class: "code ref" }, f.reference))))),
		make("p", { class: "note" }, "The fault that the player got and the line in the log have the same reference."));
}

function endpoint(e, at, value, groupOf) {
	const none = !e.endpoint;
	return make("section", { class: "endpoint" },
		make("div", { class: "title" },
			make("h2", {}, none ? "No token endpoint" : breakable(e.endpoint)),
			make("p", {}, none ? "the modes observe and reauthorize need none" : e.client_id ? ["as ", make("span", { class: "code" }, e.client_id)] : null)),
		make("div", { class: "grid" },
			none ? null : figures(e, value.vaults || []),
			make("div", { class: none ? "wide left" : "left" }, chart(e, at, groupOf), outcomes(e, value.outcomes)),
			none ? null : facts(e, at),
			faults(e)));
}

// --- all of it

let last; // when Caddy last answered

function render(value) {
	const at = new Date(value.at);
	const groupOf = Object.fromEntries(value.outcomes.map((o) => [o.name, o.group]));
	const wrong = value.findings.length, severe = value.findings.some((f) => f.severe);
	const state = !wrong ? "All is well" : wrong === 1 ? "One thing needs a look" : wrong + " things need a look";
	if ($("state").textContent !== state) {
		$("state").textContent = state;
		$("said").textContent = state;
	}
	$("dot").className = "dot " + (severe ? "bad" : wrong ? "warn" : "good");
	document.title = (wrong ? "(" + wrong + ") " : "") + "smapi_upgrade";
	const several = value.endpoints.length > 1;
	$("findings").replaceChildren(...value.findings.map((f) => make("li", { class: f.severe ? "severe" : undefined },
		make("span", {}, f.says),
		several && f.endpoint ? make("span", { class: "where" }, f.endpoint) : null,
		make("a", { href: f.link, rel: "noreferrer", target: "_blank" }, "What to do", make("span", { class: "unseen" }, ": " + f.says)))));

	const focused = document.activeElement && document.activeElement.id;
	$("endpoints").replaceChildren(...value.endpoints.map((e) => endpoint(e, at, value, groupOf)));
	if (focused && $(focused) && document.activeElement !== $(focused)) {
		const slot = [...chosen.values()].map((c) => c.slot);
		$(focused).focus({ preventScroll: true });
		[...chosen.values()].forEach((c, i) => { c.slot = slot[i]; });
	}
}

function lost(why) {
	document.body.classList.add("gone");
	$("dot").className = "dot bad";
	const since = last ? " What is below is of " + clock(last, true) + "." : "";
	const text = "Caddy does not answer: " + why + "." + since + " It is asked again and again.";
	if ($("lost").textContent !== text) $("lost").textContent = text;
	$("state").textContent = "Caddy is gone";
	$("when").textContent = last ? "last heard of at " + clock(last, true) : "never heard of";
	document.title = "(gone) smapi_upgrade";
}

async function ask() {
	let value;
	try {
		const answer = await fetch("page.json", { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(10000) });
		if (!answer.ok) throw new Error("it answers " + answer.status);
		value = await answer.json();
	} catch (error) {
		lost(error.message.startsWith("it answers") ? error.message : "it cannot be reached");
		return;
	}
	last = new Date();
	document.body.classList.remove("gone");
	if ($("lost").textContent) $("lost").textContent = "";
	$("when").textContent = "as of " + clock(last, true);
	render(value);
}

async function follow() {
	await ask();
	setTimeout(follow, every);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
follow();
