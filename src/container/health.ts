import type { ImageConfig } from '../image/config.ts'
import { quote } from '../machine/quote.ts'
import { ociProcess, type ProcessDefaults } from './process.ts'

/** In the guest: `starting`, `healthy` or `unhealthy`, where the image has a health check. */
export const healthFile = '/run/nestvm/health'

/**
 * The shell loop that runs the image's health check beside the container, with the meanings and the usual values of
 * docker's HEALTHCHECK; undefined where there is none.
 */
export function healthLoop(check: ImageConfig['healthcheck'], defaults: ProcessDefaults, exec: string) {
  const argv = check && healthCommand(check.test)
  if (!check || !argv) return undefined
  const { intervalMs = 30_000, timeoutMs = 30_000, startPeriodMs = 0, retries = 3 } = check
  const process = JSON.stringify(ociProcess(argv, { env: {} }, defaults))
  const seconds = (milliseconds: number) => (milliseconds / 1000).toFixed(3)
  const run = `timeout ${Math.max(1, Math.round(timeoutMs / 1000))} sh -c ${quote(exec)} sh ${quote(process)} /dev/null`
  // In a process of init's own: crun waits for all children that it has.
  return `( ( failed=0 graceful=${Math.ceil(startPeriodMs / Math.max(intervalMs, 1))}; echo starting > ${healthFile}
while :; do
  sleep ${seconds(intervalMs)}
  if ${run}; then failed=0 graceful=0; echo healthy > ${healthFile}
  elif [ $graceful -gt 0 ]; then graceful=$((graceful - 1))
  else failed=$((failed + 1)); [ $failed -lt ${retries} ] || echo unhealthy > ${healthFile}; fi
done ) > /dev/null 2>&1 < /dev/null & )
`
}

/** The first word tells the form; NONE switches off what a base image has. */
function healthCommand([form, ...words]: readonly string[]): string[] | undefined {
  if (form === 'CMD') return words
  return form === 'CMD-SHELL' ? ['/bin/sh', '-c', ...words] : undefined
}
