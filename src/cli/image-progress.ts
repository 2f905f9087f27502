import type { ImageProgress, ImageProgressEvent } from '../image/progress.ts'
import { megabytes } from './progress.ts'

const verbs: Record<ImageProgressEvent['phase'], string> = {
  ...{ wait: 'waiting for', resolve: 'asking for', download: 'downloading', check: 'unpacking', build: 'writing' },
}

/** One line on stderr for what is being done, with a bar for each layer on its way; nothing where that is no terminal. */
export function showImageProgress(quiet: boolean): { progress: ImageProgress; done: () => void } {
  const { stderr } = process
  if (quiet || !stderr.isTTY) return { progress: () => {}, done: () => {} }
  /** By label, in the order in which they began. */
  const layers = new Map<string, ImageProgressEvent>()
  let lines = 0
  let last = 0
  const clear = () => {
    if (lines > 0) stderr.write(`\x1b[${lines}A\x1b[J`)
    lines = 0
  }
  const progress = (event: ImageProgressEvent) => {
    if (event.phase === 'download') layers.set(event.label, event)
    const ended = event.phase === 'download' && event.bytesDone >= (event.bytesTotal ?? 0)
    if (ended) layers.delete(event.label)
    const now = performance.now()
    // Chunks come faster than anybody reads.
    if (event.phase !== 'resolve' && !ended && now - last < 100) return
    last = now
    const shown = [...layers.values(), ...(event.phase === 'download' ? [] : [event])]
    clear()
    for (const line of shown) stderr.write(`${format(line).slice(0, (stderr.columns || 80) - 1)}\n`)
    lines = shown.length
  }
  return { progress, done: clear }
}

function format({ phase, label, bytesDone, bytesTotal }: ImageProgressEvent): string {
  if (!bytesTotal) return `${verbs[phase]} ${label}${bytesDone > 0 ? `, ${megabytes(bytesDone)}` : ''}`
  const full = Math.round(Math.min(1, bytesDone / bytesTotal) * 24)
  const bar = `${'█'.repeat(full)}${'░'.repeat(24 - full)}`
  return `${bar} ${megabytes(bytesDone)} of ${megabytes(bytesTotal)}  ${verbs[phase]} ${label}`
}
