"""A backend under Django (WSGI, served by waitress) with the GRIP libraries of PyPI. Arguments: its
port, the server's publishing port, the key of Grip-Sig."""

import sys

import django
import waitress
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

PORT, CONTROL, KEY = sys.argv[1:]

settings.configure(
    ALLOWED_HOSTS=['*'], ROOT_URLCONF=__name__, SECRET_KEY='only for tests', DEBUG=False,
    MIDDLEWARE=['django_grip.GripMiddleware'], DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    GRIP_PROXIES=[{'control_uri': 'http://127.0.0.1:' + CONTROL, 'key': KEY}])
django.setup()

# The middleware reads the settings, so it comes after them.
from django_grip import publish, set_hold_longpoll, set_hold_stream  # noqa: E402
from gripcontrol import Channel, HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat  # noqa: E402


def plain(request):
    return JsonResponse({'proxied': request.grip.proxied, 'signed': request.grip.signed})


def stream(request, channel):
    set_hold_stream(request, Channel(channel), keep_alive_data='ping\n', keep_alive_timeout=1)
    return HttpResponse('open\n', content_type='text/plain')


def poll(request, channel):
    set_hold_longpoll(request, Channel(channel), timeout=int(request.GET.get('timeout', 30)))
    return HttpResponse('nothing\n', content_type='text/plain')


def send(request, channel):
    """Publishes the body in all formats."""
    text = request.body.decode()
    for form in (HttpStreamFormat(text), HttpResponseFormat(body=text), WebSocketMessageFormat(text)):
        publish(channel, form, blocking=True)
    return HttpResponse('published\n')


def websocket(request, channel):
    """A WebSocket over HTTP: counts its messages in its meta data, answers each."""
    ws = request.wscontext
    if ws is None:
        return HttpResponse('not a WebSocket\n', status=400)
    if ws.is_opening():
        ws.accept()
        ws.subscribe(channel)
        ws.meta['count'] = '0'
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close()
            break
        if message == 'bye':
            ws.close(4001)
            break
        ws.meta['count'] = str(int(ws.meta['count']) + 1)
        ws.send('%s: %s' % (ws.meta['count'], message))
    return HttpResponse()


def echo(request):
    return HttpResponse(request.body, content_type='application/octet-stream')


def chunks(request):
    return StreamingHttpResponse(('piece %d\n' % n for n in range(5)), content_type='text/plain')


def this_file(request):
    return FileResponse(open(__file__, 'rb'), content_type='text/plain')


urlpatterns = [
    path('plain', plain), path('stream/<channel>', stream), path('poll/<channel>', poll),
    path('publish/<channel>', send), path('ws/<channel>', websocket), path('echo', echo),
    path('chunks', chunks), path('file', this_file)]

if __name__ == '__main__':
    waitress.serve(get_wsgi_application(), host='127.0.0.1', port=int(PORT), threads=8,
                   max_request_body_size=1 << 30)
