// Run in the page by test_page.py: every text in sight whose contrast to its ground is below WCAG's AA.
(() => {
  const parse = (text) => {
    const found = text.match(/[\d.]+/g).map(Number);
    return { rgb: found.slice(0, 3), alpha: found[3] ?? 1 };
  };
  const over = ({ rgb, alpha }, ground) => rgb.map((value, at) => alpha * value + (1 - alpha) * ground[at]);
  const light = (rgb) => {
    const [red, green, blue] = rgb.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const groundOf = (element) => {
    const own = parse(getComputedStyle(element).backgroundColor);
    if (own.alpha === 1) return own.rgb;
    return over(own, element.parentElement ? groundOf(element.parentElement) : [255, 255, 255]);
  };
  const isSeen = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && element.checkVisibility({ visibilityProperty: true });
  };
  const found = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!(hasText || element.placeholder) || !isSeen(element)) continue;
    seen++;
    const style = getComputedStyle(element, element.placeholder ? "::placeholder" : null), ground = groundOf(element);
    const isDrawn = element instanceof SVGElement, size = parseFloat(style.fontSize);
    const ink = over(parse(isDrawn ? style.fill : style.color), ground);
    const [low, high] = [light(ink), light(ground)].sort((one, other) => one - other);
    const contrast = (high + 0.05) / (low + 0.05);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (isLarge ? 3 : 4.5)) {
      found.push(`${element.tagName} ${element.id} ${element.className} "${element.textContent.trim().slice(0, 20)}" ${contrast.toFixed(2)}`);
    }
  }
  return { seen, found };
})()
