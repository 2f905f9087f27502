/** What a guest with `-cpu host` sees of the processor that it runs on. */
export interface Processor {
  /** What tells models apart, by the names that /proc/cpuinfo has. */
  model: Record<string, string>
  flags: string[]
}

const modelKeys = [
  'vendor_id',
  'cpu family',
  'model',
  'stepping',
  'CPU implementer',
  'CPU part',
  'CPU variant',
  'CPU revision',
]

/** From the first processor's part of /proc/cpuinfo. */
export function readProcessor(cpuinfo: string): Processor {
  const fields = new Map(
    cpuinfo.split('\n').map((line) => [line.split(':')[0]?.trim() ?? '', line.split(':')[1]?.trim() ?? '']),
  )
  const model = modelKeys.flatMap((key) => {
    const value = fields.get(key)
    return value === undefined ? [] : [[key, value] as const]
  })
  const flags = (fields.get('flags') ?? fields.get('Features') ?? '').split(' ').filter(Boolean)
  return { model: Object.fromEntries(model), flags: flags.sort() }
}

/**
 * `wrong` where the guest would miss what it uses; `untested` where it would be on another model, or see features that it
 * has not seen before.
 */
export function processorDifference(here: Processor, there: Processor): { wrong?: string; untested?: string } {
  const missing = here.flags.filter((flag) => !there.flags.includes(flag))
  if (here.model.vendor_id !== there.model.vendor_id) return { wrong: 'it is of another maker' }
  if (missing.length > 0) return { wrong: `it lacks ${missing.join(', ')}` }
  const key = modelKeys.find((name) => here.model[name] !== there.model[name])
  if (key) return { untested: `its ${key} is ${there.model[key]}, not ${here.model[key]}` }
  const more = there.flags.filter((flag) => !here.flags.includes(flag))
  return more.length > 0 ? { untested: `it also has ${more.join(', ')}` } : {}
}
