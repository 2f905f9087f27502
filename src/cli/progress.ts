import type { Progress, ProgressEvent } from '../bundle/progress.ts'

const verbs: Record<ProgressEvent['phase'], string> = {
  wait: '',
  lists: 'getting ',
  download: 'downloading ',
  unpack: 'unpacking ',
  build: 'building ',
  compile: 'compiling ',
  copy: 'copying ',
}

/** A bar on a terminal; elsewhere one line for each step. Always on stderr. */
export function showProgress(): { progress: Progress; done: () => void } {
  const { stderr } = process
  let shown = ''
  const done = () => {
    if (stderr.isTTY && shown !== '') stderr.write('\r\x1b[K')
    shown = ''
  }
  const progress = (event: ProgressEvent) => {
    if (stderr.isTTY) {
      const line = bar({ ...event, label: `${verbs[event.phase]}${event.label}` })
      if (line !== shown) stderr.write(`\r\x1b[K${line}`)
      shown = line
    } else if (`${event.phase} ${event.label}` !== shown) {
      shown = `${event.phase} ${event.label}`
      stderr.write(
        `${verbs[event.phase]}${event.label}${event.bytesTotal ? ` (${megabytes(event.bytesTotal)})` : ''}\n`,
      )
    }
  }
  return { progress, done }
}

/** A line of what a run is doing, which the next one takes the place of; nothing where stderr is no terminal. */
export function showStep(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}

function bar({ label, detail, bytesDone, bytesTotal }: ProgressEvent): string {
  if (!bytesTotal) return detail === undefined ? label : `${label}: ${detail}`
  const share = Math.min(1, bytesDone / bytesTotal)
  const full = Math.round(share * 24)
  return `${'█'.repeat(full)}${'░'.repeat(24 - full)} ${megabytes(bytesDone)} of ${megabytes(bytesTotal)}  ${label}`
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`
}
