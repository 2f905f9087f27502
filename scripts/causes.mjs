// A reporter of node:test: for each test that failed the first lines of why, since a long log is often read from its end.
import { relative } from 'node:path'

export default async function* causes(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:fail' || data.details?.error?.failureType === 'subtestsFailed') continue
    const error = data.details?.error
    const why = String(error?.cause?.message ?? error?.message ?? error)
    const lines = why.split('\n').filter((line) => line.trim() !== '')
    yield `\nfailed: ${data.name} (${relative('.', data.file ?? '')})\n`
    yield lines
      .slice(0, 12)
      .map((line) => `  ${line.slice(0, 300)}\n`)
      .join('')
  }
}
