// Pictures on their way to the agent: scaled down, and sent in chunks.

const LONGEST_SIDE = 1024;
const QUALITY = 0.85;
const CHUNK = 60_000;

// Return a picture's file as a JPEG data URL. Raises what the browser raises for a file that is no picture.
export async function shrink(file) {
  const bitmap = await createImageBitmap(file);
  try {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const brush = canvas.getContext("2d");
    // JPEG knows no transparency: without this, it would be black.
    brush.fillStyle = "#fff";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", QUALITY);
  } finally {
    bitmap.close();
  }
}

// The messages that bring a picture to the server.
export function* messages(dataUrl, text) {
  const id = `picture_${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
  yield { type: "image_start", id, ...(text && { text }) };
  for (let start = 0; start < dataUrl.length; start += CHUNK) {
    yield { type: "image_chunk", id, chunk: dataUrl.slice(start, start + CHUNK) };
  }
  yield { type: "image_end", id };
}
