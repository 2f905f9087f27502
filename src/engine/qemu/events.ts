import * as z from 'zod'

/** What makes QEMU tell its events to a file: it takes commands from another file, of which this is the one line. */
export const eventsInput = '{"execute":"qmp_capabilities"}\n'

const eventSchema = z.object({ event: z.string(), data: z.object({ reason: z.string().optional() }).optional() })

/**
 * Why QEMU ended, for people, by the events that it has told (QEMU's qapi/run-state.json, ShutdownCause). Undefined where
 * it told nothing: something killed it.
 */
export function whyEnded(events: string): string | undefined {
  const shutdown = events
    .split('\n')
    .flatMap((line) => parse(line) ?? [])
    .findLast(({ event }) => event === 'SHUTDOWN')
  const reason = shutdown?.data?.reason
  return reason === undefined ? undefined : (words[reason] ?? reason)
}

/** With `-no-reboot` a reset is an end. */
const words: Record<string, string> = {
  'guest-reset': 'the guest reset its machine, as after a kernel panic, or its processor did after a triple fault',
  'guest-shutdown': 'the guest shut its machine down',
  'guest-panic': 'the guest panicked',
  'host-signal': 'a signal asked QEMU to end',
  'host-qmp-quit': 'QEMU was told to end',
}

function parse(line: string): z.infer<typeof eventSchema> | undefined {
  try {
    return eventSchema.parse(JSON.parse(line))
  } catch {
    return undefined
  }
}
